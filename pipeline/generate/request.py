"""Sample requests and their PNG metadata.

A PNG may come from an untrusted source, so every field is bounded and none names a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tld_model.config import (
    LARGEST_SEED,
    GuidanceInterval,
    GuidanceScale,
    SamplingSettings,
    SolverChoice,
    StepCount,
)

Layout = Literal["picture", "grid"]
Device = Literal["cpu", "gpu"]
MOST_IMAGES = 4096


def _shows_something(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("the prompt is empty; describe what the image should show")
    return prompt


def _is_not_empty(prompts: tuple[str, ...]) -> tuple[str, ...]:
    if not prompts:
        raise ValueError("there is no prompt")
    return prompts


_Text = Annotated[str, Field(max_length=2000)]
_Prompt = Annotated[str, Field(max_length=2000), AfterValidator(_shows_something)]
_Prompts = Annotated[tuple[_Prompt, ...], Field(max_length=1000), AfterValidator(_is_not_empty)]
_Name = Annotated[str, Field(max_length=300)]
_Digest = Annotated[str, Field(max_length=300)]
_Side = Annotated[int, Field(ge=1, le=16_384)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SampleRequest(_FrozenModel):
    """Images of some prompts. Image i of each prompt has the noise of seed + i."""

    prompts: _Prompts
    negative: _Text = ""
    """Negative prompt, which guidance points away from."""
    count: int = Field(ge=1, le=MOST_IMAGES)
    """Images per prompt."""
    seed: int = Field(ge=0, le=LARGEST_SEED)
    steps: StepCount
    guidance: GuidanceScale
    solver: SolverChoice
    guidance_interval: GuidanceInterval
    size: tuple[_Side, _Side] | None = None
    """Width and height in pixels; by default those of the model's training."""

    @property
    def sampling(self) -> SamplingSettings:
        return SamplingSettings(self.steps, self.guidance, self.solver, self.guidance_interval)

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
        return self

    @model_validator(mode="after")
    def _negative_leads(self) -> SampleRequest:
        if self.negative and self.guidance == 1:
            raise ValueError(
                "a negative prompt does nothing at guidance 1 (no guidance); raise the guidance"
            )
        return self


class Encoder(_FrozenModel):
    """A VAE or CLIP."""

    name: _Name
    identity: _Digest


class ModelIdentity(_FrozenModel):
    """The model that generated an image. `source` is a name for people."""

    source: _Name
    digest: _Digest
    vae: Encoder
    clip: Encoder

    def differences(self, other: ModelIdentity) -> list[str]:
        """Sentences on what differs between this model and `other`."""
        parts = [
            ("model", self.source, self.digest, other.source, other.digest),
            *(
                (what, mine.name, mine.identity, theirs.name, theirs.identity)
                for what, mine, theirs in (
                    ("VAE", self.vae, other.vae),
                    ("CLIP", self.clip, other.clip),
                )
            ),
        ]
        return [
            f"{what} {mine!r} ({identity[:12]}), but here {theirs!r} ({other_identity[:12]})"
            for what, mine, identity, theirs, other_identity in parts
            if identity != other_identity
        ]


class SampleMetadata(_FrozenModel):
    """All metadata in a PNG of `tld sample`."""

    drawing: SampleRequest
    layout: Layout
    """A single image, or a grid of images over their captions."""
    model: ModelIdentity
    device: Device
    """Kind of device; another kind may round differently."""
    tld: Annotated[str, Field(max_length=50)]
    """Version of tld."""


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each invalid field, as a dotted name, and what is wrong with it."""
    return [
        (".".join(map(str, details["loc"])), _message(dict(details))) for details in error.errors()
    ]


def _message(details: dict[str, Any]) -> str:
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "missing" or isinstance(details["input"], dict):
        return message
    value = repr(details["input"])
    return f"{message}, got {value if len(value) <= 60 else value[:60] + ' …'}"
