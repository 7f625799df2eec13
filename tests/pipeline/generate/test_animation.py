from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.generate.animation import strip, write_animation

FRAMES = np.stack([np.full((64, 48, 3), (level, 30, 200), np.uint8) for level in (0, 60, 120, 240)])
THERE_AND_BACK = (0, 60, 120, 240, 120, 60)


def test_a_strip_is_side_by_side() -> None:
    side_by_side = strip(FRAMES)
    assert side_by_side.shape == (64, 4 * 48, 3)
    np.testing.assert_array_equal(side_by_side[:, 48:96], FRAMES[1])


def test_a_gif_goes_there_and_back_for_ever(tmp_path: Path) -> None:
    write_animation(FRAMES, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (48, 64)
        assert gif.info["loop"] == 0
        reds = []
        for number in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(number)
            reds.append(np.asarray(gif.convert("RGB"))[0, 0, 0])
    np.testing.assert_allclose(reds, THERE_AND_BACK, atol=3)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gif"]


def test_an_mp4_opens_and_shows_the_same(tmp_path: Path) -> None:
    write_animation(FRAMES, tmp_path / "a.mp4")
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert video.isOpened()
    reds = []
    while (read := video.read())[0]:
        assert read[1].shape == (64, 48, 3)
        reds.append(float(read[1][:, :, 2].mean()))
    np.testing.assert_allclose(reds, THERE_AND_BACK, atol=12)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(OSError, match=name):
            write_animation(FRAMES, tmp_path / "gone" / name)
    assert not list(tmp_path.iterdir())
