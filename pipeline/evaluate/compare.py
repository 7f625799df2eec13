"""Comparison of two trained models on the same prompts and noise, with confidence intervals.

Both models are sampled again, so any two can be compared whose captions were encoded by the same
CLIP. Each is sampled with the settings of its own run (steps, guidance); the prompts, the seed and
the image features are those of the first run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.figures import EncodingsFigures
from data_catalog.images import Images
from data_catalog.storage.digests import digest_of
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.evaluate.held_out_samples import (
    diversity_of_open_attributes,
    diversity_of_prompts,
    load_models,
    sample_repeatedly,
)
from pipeline.evaluate.score_rows import Drawn, Row, score_rows
from pipeline.held_out.samples import (
    HeldOutSet,
    Models,
    decode_held_out,
    reference_scores,
    sample_held_out,
    select_held_out,
)
from pipeline.scoring.bootstrap import caption_groups
from pipeline.scoring.image_scores import score_images
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.integrity import refuse_damaged_shards

_UNRELATED_TO_SAMPLING = {
    "prompts",
    "seed",
    "grid",
    "concept_column",
    "style_column",
    "require",
    "price_per_hour",
    "device",
    "batch_size",
    "features",
}


class ComparisonError(ValueError):
    """Two runs cannot be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """One of the two runs."""

    name: str  # as the user typed it
    config: RunConfig
    encodings: Manifest
    model: Manifest


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same prompts."""

    runs: tuple[TrainedRun, TrainedRun]
    captions: list[str]  # the prompts
    drawn: tuple[Drawn, Drawn]
    real: Images  # the held-out images of the prompts
    rows: list[Row]


def compare(
    first: TrainedRun, second: TrainedRun, prompts: int, track: ShowsProgress
) -> Comparison:
    """Sample and score both runs on the same prompts.

    Raises ComparisonError if the runs cannot be compared.
    """
    check_comparable(first, second)
    first_set, second_set = _common_prompts(first, second, prompts)
    for encodings in {run.encodings.folder: run.encodings for run in (first, second)}.values():
        refuse_damaged_shards(encodings, track)
    models = load_models(first.encodings, first.model, first.config.evaluate)
    first_samples = _sample_run(models, first_set, first.config.evaluate, track)
    batch_size = first.config.evaluate.batch_size
    reference = reference_scores(
        models, first_set, first.encodings, batch_size, Workspace(first.config.folder)
    )
    real = decode_held_out(models, first_set, list(range(len(first_set.captions))), batch_size)

    del models  # two large models need not fit the device at once
    judging = {"seed": first.config.evaluate.seed, "features": first.config.evaluate.features}
    settings = second.config.evaluate.model_copy(update=judging)
    second_samples = _sample_run(
        load_models(second.encodings, second.model, settings), second_set, settings, track
    )
    return Comparison(
        (first, second),
        first_set.captions,
        (first_samples, second_samples),
        real,
        score_rows(first_samples, second_samples, reference, caption_groups(first_set.captions)),
    )


def comparison_folder(first: TrainedRun, second: TrainedRun, prompts: int) -> Path:
    """Folder of a comparison in the workspace of the first run; equal comparisons share it."""
    identity = [
        [run.model.digest, run.config.evaluate.model_dump(mode="json")] for run in (first, second)
    ]
    return Workspace(first.config.folder).comparisons / digest_of([*identity, prompts])[:12]


def check_comparable(first: TrainedRun, second: TrainedRun) -> None:
    """Raise ComparisonError if nothing differs or if no single CLIP can score both runs."""
    encoders = [EncodingsFigures.of(run.encodings).encoders for run in (first, second)]
    if not all(names.clip for names in encoders):
        raise ComparisonError(
            "A and B cannot be scored without CLIP: encode.clip is null in one of them; set it"
        )
    if encoders[0].clip_identity != encoders[1].clip_identity:
        raise ComparisonError(
            "A and B have no CLIP in common to score them with: that of A is "
            f"{encoders[0].clip!r}, that of B {encoders[1].clip!r} (encode.clip)"
        )
    sampling = [
        run.config.evaluate.model_dump(exclude=_UNRELATED_TO_SAMPLING) for run in (first, second)
    ]
    if first.model.digest == second.model.digest and sampling[0] == sampling[1]:
        raise ComparisonError(
            "both runs have the same model and the same sampling settings; change one of them"
        )


def _common_prompts(
    first: TrainedRun, second: TrainedRun, prompts: int
) -> tuple[HeldOutSet, HeldOutSet]:
    """The first pairs, by key and caption, that are held out of both runs."""
    datasets = []
    for run in (first, second):
        pairs = open_dataset(run.encodings, run.config.model.text)
        split = split_pairs(run.encodings, run.model.settings["held_out_fraction"])
        keys = np.concatenate([shard.key for shard in pairs.shards])[split.held_out].tolist()
        named = zip(keys, split.held_out_captions, strict=True)
        datasets.append((pairs, dict(zip(named, split.held_out, strict=True))))
    (pairs_first, numbers_first), (pairs_second, numbers_second) = datasets
    common = [pair for pair in numbers_first if pair in numbers_second][:prompts]
    if len(common) < 2:
        raise ComparisonError(
            f"{len(common)} pairs are held out of both runs, but a comparison needs at least 2: "
            "train both on the same rows of the same table, with a train.held_out_fraction that "
            "holds some of them out"
        )
    captions = [caption for _, caption in common]
    return (
        select_held_out(pairs_first, np.array([numbers_first[pair] for pair in common]), captions),
        select_held_out(
            pairs_second, np.array([numbers_second[pair] for pair in common]), captions
        ),
    )


def _sample_run(
    models: Models, held_out: HeldOutSet, settings: EvaluateConfig, track: ShowsProgress
) -> Drawn:
    started = time.monotonic()
    samples = sample_held_out(models, held_out, settings, track)
    seconds = (time.monotonic() - started) / len(samples)
    judged = score_images(
        models.clip, models.features, samples, held_out.captions, settings.batch_size
    )
    repeated = sample_repeatedly(models, held_out, settings, track)
    assert repeated is not None, "check_comparable requires CLIP, and the settings some features"
    spreads = diversity_of_prompts(models, repeated, settings)
    variety = diversity_of_open_attributes(models, held_out, settings, track)
    return Drawn(samples, judged, spreads, variety, seconds)
