"""Requests that the service accepts: images, interpolations and outpaintings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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

    @property
    def steps(self) -> int:
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


DrawingRequest = ImageRequest | InterpolationRequest | OutpaintingRequest


def share_a_batch(first: DrawingRequest, second: DrawingRequest) -> bool:
    """Whether two requests can share a batch.

    Images of prompts can if their sampling settings are equal; other requests run alone.
    """
    of_prompts = isinstance(first, ImageRequest) and isinstance(second, ImageRequest)
    return first is second or (of_prompts and first.sampling == second.sampling)
