from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.generate.image_to_image import InputImageError
from pipeline.generate.input_image import read_image


def png(pixels: NDArray[np.uint8]) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    rows = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    return np.broadcast_to(rows, (height, width, 3)).copy()


def test_a_picture_of_the_models_size_comes_as_it_is() -> None:
    pixels = gradient(64, 64)
    fitted = read_image(png(pixels), None, 64)
    np.testing.assert_array_equal(fitted.pixels, pixels)
    assert fitted.pixels.flags.writeable
    assert fitted.paint is None
    assert fitted.fitting == ""


def test_another_is_cropped_to_its_middle_and_resized_with_its_mask() -> None:
    mask = np.zeros((128, 256), np.uint8)
    mask[:10, :128] = 255  # its left half lies outside the middle
    fitted = read_image(png(gradient(128, 256)), png(mask), 64)
    assert fitted.pixels.shape == (64, 64, 3)
    assert fitted.pixels[:, 0].mean() == pytest.approx(64, abs=4)
    assert fitted.paint is not None
    assert fitted.paint[:5, :32].all()
    assert fitted.paint.sum() == 5 * 32
    assert (
        "256 x 128 pixels was cropped to its central square and resized to 64 x 64"
        in fitted.fitting
    )


def test_what_is_transparent_is_painted_unless_a_mask_says_otherwise() -> None:
    alpha = np.full((64, 64, 1), 255, np.uint8)
    opaque = np.concatenate([gradient(64, 64), alpha], axis=2)
    assert read_image(png(opaque), None, 64).paint is None
    alpha[:8] = 0
    transparent = np.concatenate([gradient(64, 64), alpha], axis=2)
    paint = read_image(png(transparent), None, 64).paint
    assert paint is not None
    np.testing.assert_array_equal(paint, alpha[:, :, 0] == 0)
    mask = np.zeros((64, 64), np.uint8)
    mask[32:] = 255
    paint = read_image(png(transparent), png(mask), 64).paint
    assert paint is not None
    np.testing.assert_array_equal(paint, mask == 255)


def test_a_photo_that_was_taken_sideways_stands_up() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(gradient(64, 64)).save(file, format="PNG", exif=exif)
    pixels = read_image(file, None, 64).pixels
    assert pixels[0].mean() < 10
    assert pixels[-1].mean() > 245


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image, nothing = png(gradient(64, 64)), np.zeros((64, 64), np.uint8)
    with pytest.raises(InputImageError, match="mask has 32 x 64 pixels and the image 64 x 64"):
        read_image(image, png(nothing[:, :32]), 64)
    with pytest.raises(InputImageError, match="the mask selects nothing"):
        read_image(image, png(nothing), 64)
    with pytest.raises(InputImageError, match=r"there is no image .*gone\.png"):
        read_image(tmp_path / "gone.png", None, 64)
    with pytest.raises(InputImageError, match="the image is not in an image format"):
        read_image(io.BytesIO(b"hello"), None, 64)
    with pytest.raises(InputImageError, match="the image cannot be read"):
        read_image(io.BytesIO(png(noise).getvalue()[:2000]), None, 64)
    aside = np.zeros((64, 192), np.uint8)
    aside[:, :8] = 255
    with pytest.raises(InputImageError, match="outside the central square of the image"):
        read_image(png(gradient(64, 192)), png(aside), 64)


@pytest.mark.parametrize("what", ["image", "mask"])
def test_a_file_that_another_program_would_read_is_not_handed_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """EPS is drawn by Ghostscript, whatever the name of the file says."""
    program, asked, good = tmp_path / "gs", tmp_path / "asked", tmp_path / "good.png"
    program.write_text(f"#!/bin/sh\ntouch {asked}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Image.new("RGB", (64, 64)).save(good)
    bad = tmp_path / "bad.png"
    bad.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
    image, mask = (bad, None) if what == "image" else (good, bad)
    with pytest.raises(
        InputImageError, match=rf"{what} .*bad\.png is not in an image format .*: JPEG, PNG"
    ):
        read_image(image, mask, 64)
    assert not asked.exists()
