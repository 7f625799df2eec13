"""Strips and animations (GIF, MP4) of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_catalog.images import Images
from data_catalog.storage.files import replacing

_FRAMES_PER_SECOND = 12


def strip(frames: Images) -> NDArray[np.uint8]:
    """Place frames side by side: [n, h, w, 3] -> [h, n * w, 3]."""
    return np.concatenate(list(frames), axis=1)


def write_animation(frames: Images, path: Path) -> None:
    """Write the frames forwards and backwards: a .gif repeats, an .mp4 plays once.

    Raises OSError if the file cannot be written.
    """
    forth_and_back = np.concatenate([frames, frames[-2:0:-1]])
    write = {".gif": _write_gif, ".mp4": _write_mp4}[path.suffix.lower()]
    with replacing(path) as unfinished:
        write(forth_and_back, unfinished)


def _write_gif(frames: Images, path: Path) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    duration = round(1000 / _FRAMES_PER_SECOND)
    first.save(path, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _write_mp4(frames: Images, path: Path) -> None:
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"mp4v"), _FRAMES_PER_SECOND, (width, height)
    )
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {path.name}; a .gif needs no video codec")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
