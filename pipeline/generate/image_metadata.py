"""Metadata of an image: the request that it follows from, the model, the kind of device.

Every PNG that tld writes holds one. It may come from an untrusted source, so every field is bounded
and none names a path to open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.distribution import tld_version
from pipeline.generate.earlier_metadata import in_present_form
from pipeline.generate.request import (
    Digest,
    EditRequest,
    FrozenModel,
    InterpolateRequest,
    Name,
    PanoramaRequest,
    SampleRequest,
)
from tld_model.config import SamplingSettings

Device = Literal["cpu", "gpu"]
AnyRequest = SampleRequest | EditRequest | InterpolateRequest | PanoramaRequest


class Encoder(FrozenModel):
    """A VAE or a text encoder."""

    name: Name
    identity: Digest


class ModelIdentity(FrozenModel):
    """The model that generated an image. `source` is a name for people."""

    source: Name
    digest: Digest
    vae: Encoder | None
    """None in files of earlier versions that do not say it, like `clip`."""
    clip: Encoder | None
    """The text encoder, of whatever kind: this name is from when all were CLIP."""

    def differences(self, other: ModelIdentity) -> list[str]:
        """Sentences on what differs between this model and `other`, as far as both are known."""
        parts = [
            ("model", self.source, self.digest, other.source, other.digest),
            *(
                (what, mine.name, mine.identity, theirs.name, theirs.identity)
                for what, mine, theirs in (
                    ("VAE", self.vae, other.vae),
                    ("text encoder", self.clip, other.clip),
                )
                if mine and theirs
            ),
        ]
        return [
            f"{what} {f'{mine!r} ' if mine else ''}({identity[:12]}), but here {theirs!r} "
            f"({other_identity[:12]})"
            for what, mine, identity, theirs, other_identity in parts
            if identity != other_identity
        ]


class Origin(FrozenModel):
    """The model, the kind of device and the version of tld that generated an image."""

    model: ModelIdentity | None
    """None in files of earlier versions that do not say it, like `device`."""
    device: Device | None
    """Kind of device; another kind may round differently."""
    tld: Annotated[str, Field(max_length=50)]
    """Version of tld, or nothing in files of earlier versions that do not say it."""

    @classmethod
    def of(cls, model: ModelIdentity, device: str) -> Origin:
        """The origin of images that this process generates on a torch device."""
        return cls(
            model=model,
            device="cpu" if device == "cpu" else "gpu",
            tld=tld_version(),
        )


class ImageMetadata(FrozenModel):
    """All metadata in a PNG of tld."""

    request: Annotated[AnyRequest, Field(discriminator="command")]
    origin: Origin


def validate_metadata(stored: Mapping[str, Any], own: SamplingSettings) -> ImageMetadata | None:
    """The metadata in what a PNG stores, or None if that is something else.

    What files of earlier versions do not say of sampling is taken from `own`, the settings of the
    run. Raises pydantic's ValidationError.
    """
    present = in_present_form(stored, own)
    return None if present is None else ImageMetadata.model_validate(present)
