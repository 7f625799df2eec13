"""A PNG tells how it was made, and one from a stranger can do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.generate.png_metadata import ENTRY, ImageFileError, read_settings, write_image

IMAGE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
SETTINGS = {"prompts": ["ein roter Stern ✶", "红星"], "seed": 7, "guidance": 2.5, "size": [64, 32]}


def test_settings_come_back_and_pixels_are_whole(tmp_path: Path) -> None:
    path, again = tmp_path / "a.png", tmp_path / "b.png"
    for one in (path, again):
        write_image(IMAGE, SETTINGS, one)
    assert read_settings(path) == SETTINGS
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(IMAGE))
    assert path.read_bytes() == again.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, again]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="cannot write"):
        write_image(IMAGE, SETTINGS, tmp_path / "gone/a.png")
    with pytest.raises(ImageFileError, match="the maximum is 1000000"):
        write_image(IMAGE, {"prompts": ["x" * 1_000_001]}, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, "has no tld metadata"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ("[1]", "holds a list, not settings"),
        (json.dumps({"x": "y" * 1_000_000}), "the maximum is 1000000"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_strangers_picture(tmp_path: Path, entry: str | None, says: str, packed: bool) -> None:
    entries, path = PngImagePlugin.PngInfo(), tmp_path / "a.png"
    if entry is not None:
        entries.add_itxt(ENTRY, entry, zip=packed)
    IMAGE.save(path, pnginfo=entries)
    with pytest.raises(
        ImageFileError,
        match=says if len(entry or "") < 1_000_000 or not packed else "too large|maximum",
    ):
        read_settings(path)


def test_what_is_no_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR", b"GIF89a"):
        path.write_bytes(content)
        with pytest.raises(ImageFileError, match="not a readable PNG"):
            read_settings(path)
    with pytest.raises(ImageFileError, match="there is no file"):
        read_settings(tmp_path / "gone.png")
    with pytest.raises(ImageFileError, match="not a readable PNG"):
        read_settings(tmp_path)
