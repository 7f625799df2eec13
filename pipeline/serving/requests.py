"""What a service can be asked to draw. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.generate.tiling import Border, usual_overlap, windows_around
from tld_model.config import SamplingSettings


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Some pictures of one prompt. Picture i has noise of its own, that of seed + i."""

    prompt: str
    seed: int
    count: int
    sampling: SamplingSettings

    @property
    def steps(self) -> int:
        """How far it is, at its end."""
        return self.sampling.steps


@dataclass(frozen=True, slots=True)
class InterpolationRequest:
    """Frames from one prompt and seed to others, both ends among them."""

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
    """A picture [edge, edge, 3], painted on at its sides."""

    prompt: str
    image: NDArray[np.uint8] = field(compare=False)
    border: Border
    seed: int
    sampling: SamplingSettings

    @property
    def overlap(self) -> int:
        return usual_overlap(len(self.image))

    @property
    def count(self) -> int:
        """Pictures that it costs: a window each."""
        return len(windows_around(len(self.image), self.border, self.overlap))

    @property
    def steps(self) -> int:
        return self.count


DrawingRequest = ImageRequest | InterpolationRequest | OutpaintingRequest


def share_a_batch(first: DrawingRequest, second: DrawingRequest) -> bool:
    """Whether both can be drawn at once: pictures of prompts, sampled alike. All else is drawn
    alone."""
    of_prompts = isinstance(first, ImageRequest) and isinstance(second, ImageRequest)
    return first is second or (of_prompts and first.sampling == second.sampling)
