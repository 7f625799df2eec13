"""The denoiser as a diffusers model, whose source is part of every export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import is_accelerate_available
from torch import Tensor

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser


class TldTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Computes in the precision of its weights; inputs and outputs are float32."""

    # Half precision cannot represent the fast angular speeds. Without accelerate, diffusers does
    # not accept such a list.
    _keep_in_fp32_modules = ["angular_speeds"] if is_accelerate_available() else None

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.denoiser = Denoiser(DenoiserConfig(**architecture))

    def forward(self, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Predict clean latents [b, c, z, z] from noisy ones, noise levels [b] and text.

        The text is [b, t] or [b, l, t]; see Denoiser.
        """
        clean: Tensor = self.denoiser(noisy.to(self.dtype), sigma, text.to(self.dtype))
        return clean.float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TldTransformer:  # noqa: FBT001, FBT002
        """Move and cast everything except the angular speeds, which stay float32."""
        exact = self.denoiser.noise_embedding.angular_speeds
        super()._apply(fn, recurse)
        device = self.denoiser.noise_embedding.angular_speeds.device
        self.denoiser.noise_embedding.angular_speeds = exact.to(device)
        return self
