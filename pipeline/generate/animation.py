"""Strips and animations (GIF, MP4) of frames."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray
from PIL import Image

from data_catalog.images import Images
from data_catalog.storage.files import replacing

_FRAMES_PER_SECOND = 12
_QUALITY = "16"  # of x264: losses that one does not see


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
    """H.264 as every browser plays it: at half the resolution of colours, and with the index at the
    beginning of the file."""
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream = video.add_stream("libx264", _FRAMES_PER_SECOND, options={"crf": _QUALITY})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # sRGB, with the matrix of JPEG: of that of BT.709 Chromium shows blue 8 levels too dark.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.IEC61966_2_1
        stream.codec_context.color_range = ColorRange.MPEG
        for frame in frames:
            pixels = av.VideoFrame.from_ndarray(frame, format="rgb24")
            planes = pixels.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
            video.mux(stream.encode(planes))
        video.mux(stream.encode())
