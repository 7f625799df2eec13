"""Scores of an average during the training: those of the report, on samples of held-out captions.

The same captions are sampled from the same noise at every step, so that steps can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.inference import Inference
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.score import ScoreConfig
from pipeline.held_out.real_images import RealImages
from pipeline.held_out.retrieval import plan_searches, read_labels, retrieve
from pipeline.held_out.samples import (
    HeldOutSet,
    Models,
    decode,
    reference_scores,
    sample_latents,
)
from pipeline.scoring.image_scores import ImageScores, score_images, score_values
from pipeline.stages.contract import ShowsProgress
from tld_model.denoiser import Denoiser

# How a training samples. Other settings of the evaluate stage do not change it.
SAMPLING = EvaluateConfig(steps=20, solver="dpmpp_2m", guidance=3.0)


@dataclass(frozen=True, slots=True)
class SampleScorer:
    """Samples held-out captions and scores the samples."""

    config: ScoreConfig
    held_out: HeldOutSet
    encodings: Manifest
    inference: Inference
    models: Models | None  # only on the leading rank, which scores
    workspace: Workspace

    def scores(self, ema: Denoiser, show: ShowsProgress) -> dict[str, float]:
        """The scores of an average; {} on a rank that does not lead. If the model is sharded, every
        rank must call this."""
        batches, done, total = [], 0, len(self.held_out.captions)
        show.progress(0, total, "samples")
        for latents in sample_latents(self.inference, ema, self.held_out, SAMPLING):
            if self.models:
                images = decode(self.models.codec, self.inference, latents, SAMPLING.batch_size)
                batches.append(images)
                done += len(latents)
                show.progress(done, total, "samples")
        if self.models is None:
            return {}
        models, size = self.models, SAMPLING.batch_size
        samples = score_images(
            models.clip, models.features, np.concatenate(batches), self.held_out.captions, size
        )
        show.progress(total, total, "samples scored; held-out images")
        reference = reference_scores(models, self.held_out, self.encodings, size, self.workspace)
        return score_values(samples, reference, total) | self._retrieval(models, samples, show)

    def _retrieval(
        self, models: Models, samples: ImageScores, show: ShowsProgress
    ) -> dict[str, float]:
        """The scores of retrieval, where there are columns and image features for it."""
        columns, held_out = self.config.retrieval_columns, self.held_out
        if columns is None or not models.features:
            return {}
        size = SAMPLING.batch_size
        real = RealImages(models, held_out.pairs, self.encodings, size, self.workspace)
        labels = read_labels(self.encodings, *columns)
        searches = list(plan_searches(labels, held_out.numbers, SAMPLING.seed))
        features = samples.features[real.network.name]
        retrieval = retrieve(partial(real.features, track=show), searches, features)
        if retrieval is None:
            return {}
        estimates = retrieval.estimates(held_out.captions)
        return {k: e.value for k, e in estimates.items() if not k.startswith("reference/")}
