"""Samples compared with real images one by one: the nearest training image, and retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_catalog.images import Images
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.split import Split
from pipeline.evaluate.nearest_images import NearestImages, find_nearest_images
from pipeline.held_out.real_images import RealImages
from pipeline.held_out.retrieval import Retrieval, plan_searches, read_labels, retrieve
from pipeline.reporting.render import image_uri
from pipeline.scoring.bootstrap import Estimate, caption_groups
from pipeline.scoring.image_scores import ImageScores, estimate_reference_distances
from pipeline.scoring.prompt_accuracy import GradedImages
from pipeline.stages.contract import Tracker


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A sample on the page, beside real images."""

    images: list[str]  # data URIs
    caption: str
    note: str
    right: bool | None = None  # whether its concept was found; None if that is not the question


@dataclass(frozen=True, slots=True)
class RealComparison:
    """Samples beside real images, compared by the features of one network."""

    real_images: RealImages
    nearest: NearestImages
    retrieval: Retrieval | None  # None without the settings, or without labels
    distances: dict[str, Estimate]  # of training images in the place of the samples

    def estimates(self, captions: Sequence[str]) -> dict[str, Estimate]:
        """The scores of retrieval, and the distances of real images as scores of the reference.
        `captions` are those of all samples."""
        searched = {} if self.retrieval is None else self.retrieval.estimates(captions)
        return self.distances | searched

    def nearest_tiles(
        self, samples: Images, captions: Sequence[str], shown: Sequence[int]
    ) -> list[SideBySide]:
        """Some samples, each beside its nearest training image."""
        neighbours = self.nearest.of_samples
        numbers = self.nearest.numbers[neighbours.index[shown]]
        rows = zip(
            shown, self.real_images.images(numbers), self.real_images.captions(numbers), strict=True
        )
        return [
            SideBySide(
                [image_uri(samples[i]), image_uri(real)],
                captions[i],
                f"cosine {neighbours.cosine[i]:.3f} to “{theirs}”",
            )
            for i, real, theirs in rows
        ]

    def retrieval_tiles(
        self, samples: Images, captions: Sequence[str], shown: Sequence[int]
    ) -> list[SideBySide]:
        """Some samples, each beside the true image and the nearest of its style."""
        if (retrieval := self.retrieval) is None:
            return []
        rows = np.array([row for row, i in enumerate(retrieval.positions) if i in set(shown)], int)
        if not len(rows):  # none of them has a concept and a style
            return []
        nearest, true = retrieval.nearest[rows], retrieval.true[rows]
        real = zip(self.real_images.images(true), self.real_images.images(nearest), strict=True)
        theirs = self.real_images.captions(nearest)
        return [
            SideBySide(
                [image_uri(image) for image in (samples[retrieval.positions[row]], *images)],
                captions[retrieval.positions[row]],
                f"nearest: “{caption}”; the true one is number {retrieval.ranks[row] + 1:,} "
                f"of {retrieval.candidates[row]:,}",
                bool(retrieval.ranks[row] == 0),
            )
            for row, images, caption in zip(rows, real, theirs, strict=True)
        ]


def compare_with_real(
    real_images: RealImages,
    split: Split,
    samples: ImageScores,
    reference: ImageScores,
    config: EvaluateConfig,
    track: Tracker,
) -> RealComparison:
    """Compare samples of the first held-out captions with the real images of an encodings output,
    by the features that they were scored with."""
    name = real_images.network.name
    features, real = (s.features[name] for s in (samples, reference))
    features_of = partial(real_images.features, track=track)
    nearest = find_nearest_images(features_of, split.train, features, real)
    distances = dict[str, Estimate]()
    if (training := nearest.random_features(len(features))) is not None:
        in_place = ImageScores({name: training}, None, GradedImages({}, {}))
        groups = caption_groups(split.held_out_captions[: len(features)])
        distances = estimate_reference_distances(in_place, reference, groups)
    if not (config.concept_column and config.style_column):
        return RealComparison(real_images, nearest, None, distances)
    columns = config.concept_column, config.style_column
    labels = read_labels(real_images.encodings, *columns)
    searches = list(plan_searches(labels, split.held_out[: len(features)], config.seed))
    retrieval = retrieve(features_of, searches, features)
    if retrieval is None:
        track.warning(
            f"no retrieval_at_1 and retrieval_at_5: none of {len(features)} held-out pairs has a "
            f"text in both {' and '.join(columns)} (evaluate.concept_column, style_column)"
        )
    elif (retrieval.ceiling_ranks < 0).all():
        track.warning(
            "no reference/retrieval_at_1 and reference/retrieval_at_5: no concept of a held-out "
            f"pair is there in another style (evaluate.style_column={columns[1]})"
        )
    return RealComparison(real_images, nearest, retrieval, distances)
