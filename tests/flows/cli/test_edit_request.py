"""The words of `tld edit`: the image, the prompt and the settings in any order that makes sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.edit_request import read_sides, read_words
from flows.terminal.errors import UserError


def test_settings_may_stand_before_the_image() -> None:
    in_order = Path("in.png"), ["a star"], ["root=s3://x"]
    assert read_words("in.png", ["a star", "root=s3://x"]) == in_order
    assert read_words("root=s3://x", ["in.png", "a star"]) == in_order
    assert read_words("in.png", ["root=s3://x", "a star"]) == in_order
    assert read_words("root=s3://x", []) == (None, [], ["root=s3://x"])
    assert read_words(None, ["a star"]) == (None, ["a star"], [])
    assert read_words("a" * 300, []) == (Path("a" * 300), [], [])


def test_an_image_whose_name_looks_like_a_setting_is_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steps=9.png").touch()
    assert read_words("steps=9.png", []) == (Path("steps=9.png"), [], [])


def test_sides_have_pixels_each_once() -> None:
    assert read_sides(None) is None
    assert read_sides("left=3, top=0") == {"left": 3, "top": 0}
    for text in ("", "left", "left=", "left=-1", "left=1,left=2", "up=3", "left=1,"):
        with pytest.raises(UserError, match="is not a side and its pixels"):
            read_sides(text)
