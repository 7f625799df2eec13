"""What the config.json of a VAE says of its latents, read without torch."""

from __future__ import annotations

from pydantic import BaseModel, Field

VAE_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC", "AutoencoderKLFlux2")
_WITH_POSTERIOR = ("AutoencoderKL", "AutoencoderKLFlux2")
_FOR_HALF_PRECISION = ("AutoencoderKL", "AutoencoderTiny")
# Flux2Pipeline of diffusers makes channels of patches of 2 x 2 latents, whatever the config says.
_PATCHES = {"AutoencoderKLFlux2": 2}


class VaeConfig(BaseModel):
    """The used fields of a VAE's config.json."""

    class_name: str | None = Field(None, alias="_class_name")
    """Its class in diffusers."""
    raw_channels: int | None = Field(None, alias="latent_channels")
    """Channels of what its encoder makes."""
    block_out_channels: tuple[int, ...] = ()
    encoder_block_out_channels: tuple[int, ...] = ()  # of AutoencoderTiny and AutoencoderDC
    force_upcast: bool | None = None
    """Whether it overflows in half precision."""

    @property
    def patch(self) -> int:
        """Side of the patches of raw latents that become channels."""
        return _PATCHES.get(self.class_name or "", 1)

    @property
    def channels(self) -> int | None:
        """Channels of a latent; None if the config does not say."""
        return self.raw_channels and self.raw_channels * self.patch**2

    @property
    def downscale(self) -> int | None:
        """Pixels per latent along each axis; None if the config does not say. Each level of the
        encoder but the last halves the image."""
        levels = self.block_out_channels or self.encoder_block_out_channels
        return 2 ** (len(levels) - 1) * self.patch if levels else None

    @property
    def has_posterior(self) -> bool:
        """Whether its encoder gives a distribution of latents instead of a latent."""
        return self.class_name in _WITH_POSTERIOR

    @property
    def allows_half_precision(self) -> bool:
        """Whether it can be trusted to compute in float16."""
        return self.class_name in _FOR_HALF_PRECISION and not self.force_upcast


def class_problem(name: str, class_name: str | None) -> str | None:
    """The reason why a VAE of this class cannot be used, or None."""
    if class_name in VAE_CLASSES:
        return None
    kind = f"is of the class {class_name}" if class_name else "names no class in its config.json"
    return f"VAE {name!r} {kind}; supported are {', '.join(VAE_CLASSES[:-1])} and {VAE_CLASSES[-1]}"
