"""Emoji in ../shared/emoji to test with: facts and drawings from its webdataset tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

EMOJI = Path(__file__).parents[3] / "shared" / "emoji"
needs_emoji = pytest.mark.skipif(not EMOJI.is_dir(), reason="no emoji at ../shared/emoji")

GOOGLE, TWITTER = "Google Noto", "Twitter"  # the styles that are drawn at 64 pixels


@dataclass(frozen=True, slots=True)
class Emoji:
    """One drawing on white, with what its set says of it."""

    concept: str
    style: str
    held_out: bool
    pixels: NDArray[np.uint8]  # [64, 64, 3]


def read_emoji() -> Iterator[Emoji]:
    """The emoji of GOOGLE and TWITTER, in the order of the tars."""
    for path in sorted(EMOJI.glob("*.tar")):
        with tarfile.open(path) as tar:
            for name in (name for name in tar.getnames() if name.endswith(".json")):
                facts = json.loads(_content(tar, name))
                if facts["style"] in (GOOGLE, TWITTER):
                    png = _content(tar, name.removesuffix(".json") + ".png")
                    held_out = facts["split"] == "held_out"
                    yield Emoji(facts["concept"], facts["style"], held_out, _on_white(png))


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file
    return file.read()


def _on_white(png: bytes) -> NDArray[np.uint8]:
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", drawing.size, "white")
    return np.asarray(Image.alpha_composite(white, drawing).convert("RGB"))
