"""A PNG tells how it was made, and one from a stranger can do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.generate.image_metadata import ImageMetadata
from pipeline.generate.png_metadata import (
    ENTRY,
    ImageFileError,
    png_file,
    read_metadata,
    write_image,
)
from pipeline.generate.request import SampleRequest
from tests.support.untrained import ORIGIN
from tld_model.config import SamplingSettings

IMAGE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
OWN = SamplingSettings()
REQUEST = SampleRequest(
    prompts=("ein roter Stern ✶", "红星"),
    seed=7,
    count=1,
    steps=2,
    guidance=2.5,
    solver="heun",
    guidance_interval=(0, 1),
    size=(64, 32),
)
METADATA = ImageMetadata(request=REQUEST, origin=ORIGIN)


def test_metadata_comes_back_and_pixels_are_whole(tmp_path: Path) -> None:
    path, again = tmp_path / "a.png", tmp_path / "b.png"
    for one in (path, again):
        write_image(IMAGE, METADATA, one)
    assert read_metadata(path, OWN) == METADATA
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(IMAGE))
    assert path.read_bytes() == again.read_bytes() == png_file(IMAGE, METADATA)
    assert sorted(tmp_path.iterdir()) == [path, again]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="cannot write"):
        write_image(IMAGE, METADATA, tmp_path / "gone/a.png")
    long = REQUEST.model_copy(update={"prompts": ("x" * 2000,) * 600})
    with pytest.raises(ImageFileError, match="a PNG holds up to 1000000"):
        png_file(IMAGE, ImageMetadata(request=long, origin=ORIGIN))


def test_an_animation_holds_no_metadata(tmp_path: Path) -> None:
    for name in ("a.gif", "a.MP4"):
        with pytest.raises(ImageFileError, match="there is no file"):
            read_metadata(tmp_path / name, OWN)
        (tmp_path / name).touch()
        with pytest.raises(ImageFileError, match="is an animation, which holds no metadata"):
            read_metadata(tmp_path / name, OWN)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, "has no tld metadata"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ("[1]", "holds no request"),
        ('{"prompt": "a star"}', "holds no request"),
        (json.dumps({"x": "y" * 1_000_000}), "the maximum is 1000000"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_strangers_image(tmp_path: Path, entry: str | None, says: str, packed: bool) -> None:
    entries, path = PngImagePlugin.PngInfo(), tmp_path / "a.png"
    if entry is not None:
        entries.add_itxt(ENTRY, entry, zip=packed)
    IMAGE.save(path, pnginfo=entries)
    with pytest.raises(
        ImageFileError,
        match=says if len(entry or "") < 1_000_000 or not packed else "too large|maximum",
    ):
        read_metadata(path, OWN)


def test_what_is_no_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR", b"GIF89a"):
        path.write_bytes(content)
        with pytest.raises(ImageFileError, match="not a readable PNG"):
            read_metadata(path, OWN)
    with pytest.raises(ImageFileError, match="there is no file"):
        read_metadata(tmp_path / "gone.png", OWN)
    with pytest.raises(ImageFileError, match="not a readable PNG"):
        read_metadata(tmp_path, OWN)
