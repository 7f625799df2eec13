"""Work of requests: how many images of the model's own size and settings cost as much."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.serving.requests import (
    DrawingRequest,
    EditingRequest,
    ImageRequest,
    InterpolationRequest,
    OutpaintingRequest,
)
from tld_model.config import DenoiserConfig, SamplingSettings

_PASSES_OF_A_MASK = 2  # of a model that is no inpainting model


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What requests cost a model, in images of its own size and sampling settings.

    An image that costs less than one of these counts as one, because its text and its decoding cost
    as much as theirs.
    """

    architecture: DenoiserConfig
    edge: int
    """Height and width of its images, in pixels."""
    own: SamplingSettings

    def __call__(self, request: DrawingRequest) -> int:
        size = request.size if isinstance(request, ImageRequest) else None
        share = _rows(request.sampling) / _rows(self.own) * self._repeats(request)
        return math.ceil(
            request.count * max(1.0, share * (self._size_factor(*size) if size else 1))
        )

    def _size_factor(self, width: int, height: int) -> float:
        """How many times the multiplications of the model's size this one takes: those of attention
        grow with the square of its pixels."""
        model = self.architecture
        pixels = width * height / self.edge**2
        projections = (3 + 2 * model.mlp_multiplier) * model.width
        attention = 2 * model.tokens
        return pixels * (projections + attention * pixels) / (projections + attention)

    def _repeats(self, request: DrawingRequest) -> float:
        """How many times the model samples for each image."""
        passes = 1 if self.architecture.inpainting else _PASSES_OF_A_MASK
        match request:
            case EditingRequest():
                return request.strength * (1 if request.image.paint is None else passes)
            case OutpaintingRequest():
                return passes
            case InterpolationRequest() if self.architecture.text == "tokens":
                return 1 if request.prompt == request.to_prompt else 2  # it mixes predictions
            case _:
                return 1


def _rows(sampling: SamplingSettings) -> float:
    """How many rows the model computes for an image: a guided call has two."""
    low, high = sampling.guidance_interval
    return sampling.model_calls * (1 if sampling.guidance == 1 else 1 + high - low)
