"""Image scores from CLIP and the attribute grader: per image, and as estimates over a set.

n images   d embedding width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_catalog.images import Images
from data_catalog.scores import missing_distances, score_of
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
from pipeline.scoring.metrics import (
    Statistic,
    clip_scores,
    cmmd_statistic,
    frechet_statistic,
    kernel_distance_statistic,
    mean_statistic,
)
from tld_model.encoders.clip import Clip

_REPLICATES = {"frechet_distance": 100}  # each replicate decomposes two covariances


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The scores of each image of a set, given its caption."""

    # CLIP image embeddings, float32 [n, d], and the score of image and caption, float64 [n]; None
    # without CLIP.
    features: Tensor | None
    clip_score: Tensor | None
    # Attribute -> whether the image shows it as the caption says, bool [n]; {} for captions that
    # are not of the built-in data set.
    correct: dict[str, Tensor]

    @property
    def all_correct(self) -> Tensor | None:
        """Whether an image shows all attributes of its caption, bool [n]; None if they cannot be
        graded."""
        return torch.stack(list(self.correct.values())).all(0) if self.correct else None


def score_images(
    clip: Clip | None, images: Images, captions: Sequence[str], batch_size: int
) -> ImageScores:
    """Score each image with its caption, without CLIP only by the grader."""
    correct = grade_attributes(images, captions)
    if clip is None:
        return ImageScores(None, None, correct)
    features = embed_images(clip, images, batch_size)
    starts = range(0, len(captions), batch_size)
    text = torch.cat(
        [clip.encode_text(captions[start : start + batch_size]).cpu() for start in starts]
    )
    return ImageScores(features, clip_scores(features, text), correct)


def embed_images(clip: Clip, images: Images, batch_size: int) -> Tensor:
    """uint8 [n, h, w, 3] -> CLIP image embeddings, float32 [n, d]"""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.cat([clip.encode_images(part).cpu() for part in pixels.split(batch_size)])


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
    by_clip = {"features": scores.features, "clip_score": scores.clip_score}
    tensors = {name: tensor for name, tensor in by_clip.items() if tensor is not None}
    with replacing(path) as unfinished:
        save_file(tensors | correct, unfinished)


def load_judged(path: Path) -> ImageScores | None:
    """Read what `save_judged` wrote, or return None if the file is missing or damaged."""
    try:
        tensors = load_file(path)
        correct = {
            name: tensors[f"correct/{name}"]
            for name in shapes.ATTRIBUTE_NAMES
            if f"correct/{name}" in tensors
        }
        return ImageScores(tensors.get("features"), tensors.get("clip_score"), correct)
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


def estimate_score(name: str, statistic: Statistic, groups: Groups) -> Estimate:
    """A score, with as many replicates as it can afford, and an interval within its range."""
    replicates, score = _REPLICATES.get(name, REPLICATES), score_of(name)
    if score.is_share:
        return bootstrap_share(statistic, groups, replicates)
    return bootstrap(statistic, groups, replicates, score.lowest)


def estimate_differences(
    first: ImageScores, second: ImageScores, reference: ImageScores, groups: Groups
) -> dict[str, Estimate]:
    """second - first for every score that depends on the samples; row i of all three has the same
    caption, whose number is groups[i]."""
    of_first, of_second = (
        _means(scores) | _distances(scores, reference) for scores in (first, second)
    )
    return {
        k: bootstrap_difference(of_first[k], of_second[k], groups, _REPLICATES.get(k, REPLICATES))
        for k in of_first
    }


def _means(scores: ImageScores) -> dict[str, Statistic]:
    means = {} if scores.clip_score is None else {"clip_score": _mean(scores.clip_score)}
    if (all_correct := scores.all_correct) is not None:
        means["prompt_accuracy"] = _mean(all_correct)
    return means | {
        f"accuracy/{name}": _mean(verdicts) for name, verdicts in scores.correct.items()
    }


def _distances(samples: ImageScores, reference: ImageScores) -> dict[str, Statistic]:
    a, b = samples.features, reference.features
    if a is None or b is None or missing_distances(min(len(a), len(b))):
        return {}
    return {
        "cmmd": cmmd_statistic(a, b),
        "kernel_distance": kernel_distance_statistic(a, b),
        "frechet_distance": frechet_statistic(a, b),
    }


def _mean(values: Tensor) -> Statistic:
    return mean_statistic(values.double().numpy())
