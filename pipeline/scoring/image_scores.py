"""Image scores from features and the attribute grader: per image, and as estimates over a set.

n images   d embedding width
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.grader import grade
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
from tld_model.encoders.clip import Clip

_FRECHET_REPLICATES = 100  # each replicate decomposes two covariances


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The scores of each image of a set, given its caption."""

    features: Mapping[str, Tensor]  # name of image features -> float32 [n, d]
    clip_score: Tensor | None  # of image and caption, float64 [n]; None without CLIP
    # Attribute -> whether the image shows it as the caption says, bool [n]; {} for captions that
    # are not of the built-in data set.
    correct: dict[str, Tensor]

    @property
    def all_correct(self) -> Tensor | None:
        """Whether an image shows all attributes of its caption, bool [n]; None if they cannot be
        graded."""
        return torch.stack(list(self.correct.values())).all(0) if self.correct else None


def score_images(
    clip: Clip | None,
    features: Sequence[ImageFeatures],
    images: Images,
    captions: Sequence[str],
    batch_size: int,
) -> ImageScores:
    """Embed the images, and score each with its caption, without CLIP only by the grader."""
    correct = grade_attributes(images, captions)
    embeddings = {one.name: one.embed(images, batch_size) for one in features}
    if clip is None:
        return ImageScores(embeddings, None, correct)
    of_clip = embeddings.get(CLIP)
    if of_clip is None:
        of_clip = clip_features(clip, "").embed(images, batch_size)
    starts = range(0, len(captions), batch_size)
    text = torch.cat(
        [clip.encode_text(captions[start : start + batch_size]).cpu() for start in starts]
    )
    return ImageScores(embeddings, clip_scores(of_clip, text), correct)


def grade_attributes(images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
    """Attribute -> whether the image shows it as the caption says, bool [n]; {} if the captions are
    not those of the built-in data set."""
    requested = [shapes.parse_caption(caption) for caption in captions]
    if not all(requested) or images.shape[1:] != (shapes.EDGE, shapes.EDGE, 3):
        return {}
    graded = [
        grade(image).agrees(attributes)
        for image, attributes in zip(images, requested, strict=True)
        if attributes
    ]
    return {
        name: torch.tensor([verdict[name] for verdict in graded]) for name in shapes.ATTRIBUTE_NAMES
    }


def save_judged(scores: ImageScores, path: Path) -> None:
    """Write to a safetensors file."""
    make_folder(path.parent)
    correct = {f"correct/{name}": verdicts for name, verdicts in scores.correct.items()}
    features = {f"features/{name}": tensor for name, tensor in scores.features.items()}
    by_clip = {} if scores.clip_score is None else {"clip_score": scores.clip_score}
    with replacing(path) as unfinished:
        save_file(features | by_clip | correct, unfinished)


def load_judged(path: Path) -> ImageScores | None:
    """Read what `save_judged` wrote, or return None if the file is missing or damaged."""
    try:
        tensors = load_file(path)
        correct = {
            name: tensors[f"correct/{name}"]
            for name in shapes.ATTRIBUTE_NAMES
            if f"correct/{name}" in tensors
        }
        features = {
            name.removeprefix("features/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("features/")
        }
        return ImageScores(features, tensors.get("clip_score"), correct)
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
    statistics |= {f"reference/{k}": s for k, s in _means(reference).items() if "accuracy" in k}
    statistics |= _distances(samples, reference)
    return {name: estimate_score(name, statistic, groups) for name, statistic in statistics.items()}


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
    differences = {
        k: bootstrap_difference(of_first[k], of_second[k], groups, _replicates(k, len(groups)))
        for k in of_first
    }
    return {
        k: replace(difference, no_interval=no_interval(k, len(groups)))
        for k, difference in differences.items()
    }


def _means(scores: ImageScores) -> dict[str, Statistic]:
    means = {} if scores.clip_score is None else {"clip_score": _mean(scores.clip_score)}
    if (all_correct := scores.all_correct) is not None:
        means["prompt_accuracy"] = _mean(all_correct)
    return means | {
        f"accuracy/{name}": _mean(verdicts) for name, verdicts in scores.correct.items()
    }


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
