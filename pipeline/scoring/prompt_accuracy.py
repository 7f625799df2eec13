"""Prompt accuracy: the share of images that show what their captions say, as the grader reads them.

Captions of the built-in data set may leave attributes open. What a caption leaves open counts
neither way, and such an image is left out of the accuracy of that attribute. But all images of the
data set show one shape, so an image in which no shape is recognised is wrong, whatever its caption.

n images
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_catalog.images import Images
from data_catalog.shapes import dataset as shapes
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from data_catalog.shapes.grader import grade
from pipeline.scoring.bootstrap import (
    Estimate,
    Groups,
    bootstrap_difference,
    bootstrap_share,
)
from pipeline.scoring.metrics import Statistic, mean_statistic


@dataclass(frozen=True, slots=True)
class GradedImages:
    """What the grader says of each image of a set."""

    # Attribute -> whether the image shows it as the caption says, bool [n]. Where the caption
    # leaves it open: True, but for the shape whether there is one. {} for other data sets.
    correct: Mapping[str, Tensor]
    # Attribute -> whether the caption names it, bool [n]; without an entry, all captions do.
    named: Mapping[str, Tensor]

    @property
    def all_correct(self) -> Tensor | None:
        """Whether an image shows everything that its caption says, bool [n]; None if it cannot be
        graded."""
        return torch.stack(list(self.correct.values())).all(0) if self.correct else None

    def is_named(self, attribute: str) -> Tensor:
        """Whether each caption names the attribute, bool [n]."""
        return self.named.get(attribute, torch.ones_like(self.correct[attribute]))


def grade_images(images: Images, captions: Sequence[str]) -> GradedImages:
    """Grade each image by its caption."""
    described = [description for c in captions if (description := shapes.parse_caption(c))]
    if len(described) < len(captions) or images.shape[1:] != (shapes.EDGE, shapes.EDGE, 3):
        return GradedImages({}, {})
    grades = [grade(image) for image in images]
    verdicts = [
        {"shape": grade.shape is not None} | grade.agrees(description)
        for grade, description in zip(grades, described, strict=True)
    ]
    return GradedImages(
        {
            name: torch.tensor([verdict.get(name, True) for verdict in verdicts])
            for name in ATTRIBUTE_NAMES
        },
        {
            name: torch.tensor([name in description.named for description in described])
            for name in ATTRIBUTE_NAMES
        },
    )


@dataclass(frozen=True, slots=True)
class _Accuracy:
    """An accuracy of the images that count for it."""

    rows: Tensor  # their numbers, int64
    right: Tensor  # whether each of all images is right, bool [n]

    def statistic(self) -> Statistic:
        return mean_statistic(self.right[self.rows].double().numpy())

    def groups(self, groups: Groups) -> Groups:
        """The groups of the rows, numbered anew."""
        chosen = np.unique(groups[self.rows.numpy()], return_inverse=True)[1]
        return np.asarray(chosen, np.int64)


def estimate_accuracies(graded: GradedImages, groups: Groups) -> dict[str, Estimate]:
    """`prompt_accuracy`, where some captions are partial its parts of full and of partial ones, and
    the accuracy of each attribute, as far as captions name it; the caption of row i has the number
    groups[i]."""
    parts = _by_attribute(graded) | _by_completeness(graded)
    return {
        name: bootstrap_share(accuracy.statistic(), accuracy.groups(groups))
        for name, accuracy in parts.items()
    }


def accuracy_differences(
    first: GradedImages, second: GradedImages, groups: Groups
) -> dict[str, Estimate]:
    """second - first of `prompt_accuracy` and of each attribute, as far as both have it; row i of
    both has the same caption, whose number is groups[i]."""
    of_first, of_second = _by_attribute(first), _by_attribute(second)
    return {
        name: bootstrap_difference(
            accuracy.statistic(), of_second[name].statistic(), accuracy.groups(groups)
        )
        for name, accuracy in of_first.items()
        if name in of_second
    }


def _by_attribute(graded: GradedImages) -> dict[str, _Accuracy]:
    right = graded.all_correct
    if right is None:
        return {}
    accuracies = {"prompt_accuracy": _Accuracy(torch.arange(len(right)), right)}
    for name, verdicts in graded.correct.items():
        accuracies[f"accuracy/{name}"] = _Accuracy(graded.is_named(name).nonzero()[:, 0], verdicts)
    return dict(_with_rows(accuracies))


def _by_completeness(graded: GradedImages) -> dict[str, _Accuracy]:
    right = graded.all_correct
    if right is None:
        return {}
    is_full = torch.stack([graded.is_named(name) for name in graded.correct]).all(0)
    if bool(is_full.all()):
        return {}
    parts = {"full": is_full, "partial": ~is_full}
    accuracies = {
        f"prompt_accuracy/{part}": _Accuracy(mask.nonzero()[:, 0], right)
        for part, mask in parts.items()
    }
    return dict(_with_rows(accuracies))


def _with_rows(accuracies: dict[str, _Accuracy]) -> Iterator[tuple[str, _Accuracy]]:
    return ((name, accuracy) for name, accuracy in accuracies.items() if len(accuracy.rows))
