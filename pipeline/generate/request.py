"""Requests for images: all settings that the images follow from, but for the model.

Commands read them from options, and PNG files record them. A PNG may come from an untrusted source,
so every field is bounded and none names a path to open.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.generate.tiling import Border
from tld_model.config import (
    LARGEST_SEED,
    GuidanceInterval,
    GuidanceScale,
    SamplingSettings,
    SolverChoice,
    StepCount,
)

Layout = Literal["picture", "grid"]
MOST_IMAGES = 4096
_LONGEST_NAME = 300


def shows_something(prompt: str) -> str:
    """The prompt. Raises ValueError if it is blank."""
    if not prompt.strip():
        raise ValueError("the prompt is empty; describe what the image should show")
    return prompt


def _check_last_seed(first: int, count: int) -> None:
    if (last := first + count - 1) > LARGEST_SEED:
        raise ValueError(
            f"the last of {count} seeds from {first} would be {last}; the largest is {LARGEST_SEED}"
        )


def _is_not_empty(prompts: tuple[str, ...]) -> tuple[str, ...]:
    if not prompts:
        raise ValueError("there is no prompt")
    return prompts


_Text = Annotated[str, Field(max_length=2000)]
_Prompt = Annotated[str, Field(max_length=2000), AfterValidator(shows_something)]
_Prompts = Annotated[tuple[_Prompt, ...], Field(max_length=1000), AfterValidator(_is_not_empty)]
_Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
_Side = Annotated[int, Field(ge=1, le=16_384)]
_Overlap = Annotated[int, Field(ge=1, le=4096)]
Name = Annotated[str, Field(max_length=_LONGEST_NAME)]
Digest = Annotated[str, Field(max_length=300)]


class FrozenModel(BaseModel):
    """A model that is complete, unchangeable, and explained by docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class GenerationRequest(FrozenModel):
    """What the requests of all commands share."""

    prompts: _Prompts
    negative: _Text = ""
    """Negative prompt, which guidance points away from."""
    seed: _Seed
    steps: StepCount
    guidance: GuidanceScale
    solver: SolverChoice
    guidance_interval: GuidanceInterval

    @property
    def sampling(self) -> SamplingSettings:
        return SamplingSettings(self.steps, self.guidance, self.solver, self.guidance_interval)

    @model_validator(mode="after")
    def _negative_leads(self) -> GenerationRequest:
        if self.negative and self.guidance == 1:
            raise ValueError(
                "a negative prompt does nothing at guidance 1 (no guidance); raise the guidance"
            )
        return self


class SampleRequest(GenerationRequest):
    """Images of some prompts. Image i of each prompt has the noise of seed + i."""

    command: Literal["sample"] = "sample"
    count: int = Field(ge=1, le=MOST_IMAGES)
    """Images per prompt."""
    size: tuple[_Side, _Side] | None = None
    """Width and height in pixels; by default those of the model's training."""
    layout: Layout = "grid"
    """A single image, or a grid of images over their captions."""

    @property
    def captions(self) -> list[str]:
        """The prompt of each image."""
        return [prompt for prompt in self.prompts for _ in range(self.count)]

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        return [self.seed + i for _ in self.prompts for i in range(self.count)]

    @model_validator(mode="after")
    def _images_fit(self) -> SampleRequest:
        if (images := len(self.prompts) * self.count) > MOST_IMAGES:
            raise ValueError(
                f"{len(self.prompts)} prompts × {self.count} are {images} images; at most "
                f"{MOST_IMAGES}"
            )
        _check_last_seed(self.seed, self.count)
        return self


class InputFile(FrozenModel):
    """An image or a mask that a request started from: a name for people, and its SHA-256."""

    name: Name
    sha256: Digest

    @classmethod
    def of(cls, name: str, content: bytes) -> InputFile:
        """The file with this content. A part of the name that is no Unicode is replaced."""
        readable = name.encode(errors="replace").decode()[:_LONGEST_NAME]
        return cls(name=readable, sha256=hashlib.sha256(content).hexdigest())


class EditRequest(GenerationRequest):
    """An image changed, repainted where a mask is white, or extended at its sides."""

    command: Literal["edit"] = "edit"
    image: InputFile
    mask: InputFile | None = None
    strength: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    """Noise level to start from; by default it depends on whether a part is masked."""
    outpaint: Border | None = None
    """Pixels to add at each side."""
    overlap: _Overlap | None = None
    """Pixels that windows of outpainting share; by default it depends on the model's size."""

    @field_validator("prompts")
    @classmethod
    def _is_one(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if len(prompts) > 1:
            raise ValueError("an edited image has one prompt; write it in quotes")
        return prompts

    @field_validator("outpaint")
    @classmethod
    def _adds_alone(cls, border: Border | None, info: ValidationInfo) -> Border | None:
        if border is None:
            return None
        if not (border.left or border.right or border.top or border.bottom):
            raise ValueError("0 pixels at every side leave the image as it is")
        # An invalid value is missing from the data: it is set nevertheless.
        if any(info.data.get(name, "invalid") is not None for name in ("mask", "strength")):
            raise ValueError(
                "goes with neither --mask nor --strength: it keeps the whole image and adds new "
                "parts"
            )
        return border

    @field_validator("overlap")
    @classmethod
    def _is_of_outpainting(cls, overlap: int | None, info: ValidationInfo) -> int | None:
        if overlap is not None and info.data.get("outpaint", "invalid") is None:
            raise ValueError("is an option of --outpaint")
        return overlap


class InterpolateRequest(GenerationRequest):
    """Frames from the first prompt and seed to the last, both included."""

    command: Literal["interpolate"] = "interpolate"
    to_seed: _Seed | None = None
    """Seed of the last frame; by default that of the first."""
    frames: int = Field(ge=2, le=MOST_IMAGES)
    frame: int | None = Field(None, ge=0)
    """Number of the frame in the file, from 0; without it all are there, side by side."""

    @property
    def ends(self) -> tuple[str, str]:
        """The prompts of the first and the last frame."""
        return self.prompts[0], self.prompts[-1]

    @property
    def seeds(self) -> tuple[int, int]:
        """The seeds of the first and the last frame."""
        return self.seed, self.seed if self.to_seed is None else self.to_seed

    @field_validator("prompts")
    @classmethod
    def _are_ends(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if len(prompts) > 2:
            raise ValueError("an interpolation has one or two prompts; write each in quotes")
        return prompts

    @field_validator("frame")
    @classmethod
    def _is_among_frames(cls, frame: int | None, info: ValidationInfo) -> int | None:
        frames = info.data.get("frames")
        if frame is not None and frames is not None and frame >= frames:
            raise ValueError(f"there are {frames} frames, counted from 0")
        return frame


class PanoramaRequest(GenerationRequest):
    """A wide image, painted from left to right. Window i has the noise of seed + i."""

    command: Literal["panorama"] = "panorama"
    windows: int = Field(ge=1, le=MOST_IMAGES)
    overlap: _Overlap | None = None
    """Pixels that windows share; by default it depends on the model's size."""
    image: InputFile | None = None
    """An image that the panorama continues to the right."""

    @property
    def captions(self) -> list[str]:
        """The prompt of each window: the last one is repeated."""
        return [*self.prompts, *self.prompts[-1:] * (self.windows - len(self.prompts))]

    @field_validator("windows")
    @classmethod
    def _leave_no_prompt_out(cls, windows: int, info: ValidationInfo) -> int:
        if windows < (prompts := len(info.data.get("prompts", ()))):
            raise ValueError(f"must leave none of {prompts} prompts out")
        if "seed" in info.data:
            _check_last_seed(info.data["seed"], windows)
        return windows
