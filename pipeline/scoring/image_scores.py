"""Image scores from features and the attribute grader: per image, and as estimates over a set.

n images   d embedding width
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_catalog.feature_names import CLIP, INCEPTION
from data_catalog.images import Images
from data_catalog.scores import (
    FEWEST_IMAGES,
    MOST_FOR_FRECHET_INTERVAL,
    is_frechet,
    no_interval,
    score_of,
    score_on,
)
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from data_catalog.storage.files import make_folder, replacing
from pipeline.scoring.bootstrap import (
    REPLICATES,
    Estimate,
    Groups,
    bootstrap,
    bootstrap_difference,
    bootstrap_share,
)
from pipeline.scoring.image_features import ImageFeatures, clip_features
from pipeline.scoring.metrics import (
    Statistic,
    clip_scores,
    cmmd_statistic,
    frechet_statistic,
    kernel_distance_statistic,
    kid_statistic,
    mean_statistic,
)
from pipeline.scoring.prompt_accuracy import (
    GradedImages,
    accuracy_differences,
    estimate_accuracies,
    grade_images,
)
from tld_model.encoders.clip import Clip

_FRECHET_REPLICATES = 100  # each replicate decomposes two covariances
_GRADED = ("correct", "named")  # fields of GradedImages, as they are stored


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The scores of each image of a set, given its caption."""

    features: Mapping[str, Tensor]  # name of image features -> float32 [n, d]
    clip_score: Tensor | None  # of image and caption, float64 [n]; None without CLIP
    graded: GradedImages


def score_images(
    clip: Clip | None,
    features: Sequence[ImageFeatures],
    images: Images,
    captions: Sequence[str],
    batch_size: int,
) -> ImageScores:
    """Embed the images, and score each with its caption, without CLIP only by the grader."""
    graded = grade_images(images, captions)
    embeddings = {one.name: one.embed(images, batch_size) for one in features}
    if clip is None:
        return ImageScores(embeddings, None, graded)
    of_clip = embeddings.get(CLIP)
    if of_clip is None:
        of_clip = clip_features(clip, "").embed(images, batch_size)
    starts = range(0, len(captions), batch_size)
    text = torch.cat(
        [clip.encode_text(captions[start : start + batch_size]).cpu() for start in starts]
    )
    return ImageScores(embeddings, clip_scores(of_clip, text), graded)


def save_judged(scores: ImageScores, path: Path) -> None:
    """Write to a safetensors file."""
    make_folder(path.parent)
    graded = {
        f"{kind}/{name}": verdicts
        for kind in _GRADED
        for name, verdicts in getattr(scores.graded, kind).items()
    }
    features = {f"features/{name}": tensor for name, tensor in scores.features.items()}
    by_clip = {} if scores.clip_score is None else {"clip_score": scores.clip_score}
    with replacing(path) as unfinished:
        save_file(features | by_clip | graded, unfinished)


def load_judged(path: Path) -> ImageScores | None:
    """Read what `save_judged` wrote, or return None if the file is missing or damaged."""
    try:
        tensors = load_file(path)
        correct, named = (
            {
                name: tensors[f"{kind}/{name}"]
                for name in ATTRIBUTE_NAMES
                if f"{kind}/{name}" in tensors
            }
            for kind in _GRADED
        )
        features = {
            name.removeprefix("features/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("features/")
        }
        graded = GradedImages(correct, named)
        return ImageScores(features, tensors.get("clip_score"), graded)
    except (OSError, SafetensorError):
        return None


def estimate_scores(
    samples: ImageScores, reference: ImageScores, groups: Groups
) -> dict[str, Estimate]:
    """Every score of the samples; row i of samples and reference has the same caption, whose number
    is groups[i]."""
    statistics = _means(samples)
    if reference.clip_score is not None:
        statistics["clip_score_reference"] = _mean(reference.clip_score)
    statistics |= _distances(samples, reference)
    of_reference = estimate_accuracies(reference.graded, groups)
    return (
        {name: estimate_score(name, statistic, groups) for name, statistic in statistics.items()}
        | estimate_accuracies(samples.graded, groups)
        | {f"reference/{name}": estimate for name, estimate in of_reference.items()}
    )


def score_values(samples: ImageScores, reference: ImageScores, images: int) -> dict[str, float]:
    """The scores of `estimate_scores` that depend on the samples, of which there are so many,
    without intervals, whose computation takes longest."""
    alike = np.zeros(images, np.int64)  # one caption is too few for an interval
    estimates = estimate_scores(samples, reference, alike)
    return {
        name: estimate.value
        for name, estimate in estimates.items()
        if score_of(name).of_model and not name.startswith("reference/")
    }


def estimate_reference_distances(
    training: ImageScores, reference: ImageScores, groups: Groups
) -> dict[str, Estimate]:
    """The distances of training images to the reference, in the place of the samples; groups[i] is
    the number of the caption of reference image i."""
    distances = _distances(training, reference).items()
    return {f"reference/{name}": estimate_score(name, value, groups) for name, value in distances}


def estimate_score(name: str, statistic: Statistic, groups: Groups) -> Estimate:
    """A score, with as many replicates as it can afford, and an interval within its range."""
    replicates, score = _replicates(name, len(groups)), score_of(name)
    if score.is_share:
        return bootstrap_share(statistic, groups, replicates)
    estimate = bootstrap(statistic, groups, replicates, score.lowest)
    return replace(estimate, no_interval=no_interval(name, len(groups)))


def _replicates(name: str, images: int) -> int:
    if not is_frechet(name):
        return REPLICATES
    return _FRECHET_REPLICATES if images <= MOST_FOR_FRECHET_INTERVAL else 0


def estimate_differences(
    first: ImageScores, second: ImageScores, reference: ImageScores, groups: Groups
) -> dict[str, Estimate]:
    """second - first for every score that depends on the samples; row i of all three has the same
    caption, whose number is groups[i]."""
    of_first, of_second = (
        _means(scores) | _distances(scores, reference) for scores in (first, second)
    )
    differences = accuracy_differences(first.graded, second.graded, groups) | {
        k: bootstrap_difference(of_first[k], of_second[k], groups, _replicates(k, len(groups)))
        for k in of_first
    }
    return {
        k: replace(difference, no_interval=no_interval(k, len(groups)))
        for k, difference in differences.items()
    }


def _means(scores: ImageScores) -> dict[str, Statistic]:
    return {} if scores.clip_score is None else {"clip_score": _mean(scores.clip_score)}


def _distances(samples: ImageScores, reference: ImageScores) -> dict[str, Statistic]:
    distances: dict[str, Statistic] = {}
    for name, a in samples.features.items():
        b = reference.features[name]
        if min(len(a), len(b)) < FEWEST_IMAGES:
            continue
        kernel_statistic = kid_statistic if name == INCEPTION else kernel_distance_statistic
        distances |= {
            score_on("cmmd", name): cmmd_statistic(a, b),
            score_on("kernel_distance", name): kernel_statistic(a, b),
            score_on("frechet_distance", name): frechet_statistic(a, b),
        }
    return distances


def _mean(values: Tensor) -> Statistic:
    return mean_statistic(values.double().numpy())
