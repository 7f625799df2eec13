"""Requests that the service accepts: images, interpolations, edits and outpaintings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.generate.image_size import Size
from pipeline.generate.request import InputFile
from pipeline.generate.tiling import Border, usual_overlap, windows_around
from tld_model.config import SamplingSettings


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Images of one prompt. Image i has the noise of seed + i."""

    prompt: str
    seed: int
    count: int
    sampling: SamplingSettings
    negative: str = ""
    size: Size | None = None  # that of the model's training without one

    @property
    def steps(self) -> int:
        """Number of steps, for progress."""
        return self.sampling.steps


@dataclass(frozen=True, slots=True)
class InterpolationRequest:
    """Frames from one prompt and seed to others, both ends included."""

    prompt: str
    to_prompt: str
    seed: int
    to_seed: int
    count: int
    sampling: SamplingSettings
    negative: str = ""

    @property
    def steps(self) -> int:
        return self.sampling.steps


@dataclass(frozen=True, slots=True)
class ImageToEdit:
    """An image [edge, edge, 3], and the part [edge, edge] to repaint, or None for all of it."""

    pixels: NDArray[np.uint8] = field(compare=False)
    file: InputFile
    paint: NDArray[np.bool_] | None = field(default=None, compare=False)
    mask_file: InputFile | None = None


@dataclass(frozen=True, slots=True)
class EditingRequest:
    """Variations of an image, sampled from a noise level: the strength. Image i has the noise of
    seed + i."""

    prompt: str
    image: ImageToEdit
    strength: float
    seed: int
    count: int
    sampling: SamplingSettings
    negative: str = ""

    @property
    def steps(self) -> int:
        """Number of steps, for progress; a lower strength takes fewer, and counts in larger
        ones."""
        return self.sampling.steps


@dataclass(frozen=True, slots=True)
class OutpaintingRequest:
    """Extension of an image [edge, edge, 3] at its sides."""

    prompt: str
    image: NDArray[np.uint8] = field(compare=False)
    image_file: InputFile
    border: Border
    seed: int
    sampling: SamplingSettings
    negative: str = ""

    @property
    def overlap(self) -> int:
        return usual_overlap(len(self.image))

    @property
    def count(self) -> int:
        """Number of windows, each of which costs as much as an image."""
        return len(windows_around(len(self.image), self.border, self.overlap))

    @property
    def steps(self) -> int:
        return self.count


DrawingRequest = ImageRequest | InterpolationRequest | EditingRequest | OutpaintingRequest


def share_a_batch(first: DrawingRequest, second: DrawingRequest) -> bool:
    """Whether two requests can share a batch.

    Images of prompts in the size of the model can if their sampling settings and negative prompts
    are equal; other requests run alone.
    """
    if first is second:
        return True
    if not isinstance(first, ImageRequest) or not isinstance(second, ImageRequest):
        return False
    sized = first.size or second.size
    return not sized and (first.sampling, first.negative) == (second.sampling, second.negative)
