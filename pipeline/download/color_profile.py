"""Conversion of images with an ICC colour profile to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from data_catalog.image_formats import LARGEST_PROFILE

_OFF_SRGB = 16  # a profile that differs from sRGB by at most this many levels of 255 counts as sRGB


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB with the colour profile of the image, if it has a usable one. This runs on
    the resized image because that is cheap."""
    if profile and len(profile) <= LARGEST_PROFILE:
        try:
            if transform := _transform_to_srgb(profile, image.mode):
                return ImageCms.applyTransform(image, transform) or image
        except Exception:  # a broken profile, or for another mode: the plain conversion will do
            pass
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> Any:
    """The transform, or None if the profile is sRGB already, so that the pixels stay unchanged."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if (
        mode == "RGB"
        and "srgb" in ImageCms.getProfileDescription(source).lower()
        and _changes_little(transform)
    ):
        return None
    return transform


def _changes_little(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether greys and primaries stay the same: a linear profile may have sRGB in its name."""
    levels = np.arange(0, 256, 15).astype(np.uint8)
    zeros = np.zeros_like(levels)
    probes = [
        (levels, levels, levels),
        (levels, zeros, zeros),
        (zeros, levels, zeros),
        (zeros, zeros, levels),
    ]
    before = np.stack([np.stack(probe, -1) for probe in probes])  # [4, n, 3]
    changed = ImageCms.applyTransform(Image.fromarray(before), transform)
    assert changed is not None
    return int(np.abs(np.asarray(changed).astype(int) - before).max()) <= _OFF_SRGB
