"""Scaling by channel and patches against the formulas of diffusers, and there and back."""

from __future__ import annotations

import pytest
import torch
from diffusers import Flux2Pipeline

from tld_model.latent_scaling import patchify, scale_latents, unpatchify, unscale_latents


@pytest.mark.parametrize(("factor", "shift"), [(0.5, 0.1), ((0.5, 2.0), (0.1, -3.0))])
def test_scaled_latents_come_back(
    factor: float | tuple[float, ...], shift: float | tuple[float, ...]
) -> None:
    raw = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    scaled = scale_latents(raw, factor, shift)
    torch.testing.assert_close(unscale_latents(scaled, factor, shift), raw)
    last_factor, last_shift = (x if isinstance(x, float) else x[1] for x in (factor, shift))
    torch.testing.assert_close(scaled[:, 1], (raw[:, 1] - last_shift) * last_factor)


def test_patches_become_channels_in_the_order_of_flux2() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(latents, 2)
    assert torch.equal(patches, Flux2Pipeline._patchify_latents(latents))
    assert torch.equal(unpatchify(patches, 2), latents)
    assert torch.equal(patchify(latents, 1), latents)
