"""A small zoo of image files: each format and mode that Pillow writes, and broken ones."""

from __future__ import annotations

import io
from contextlib import suppress

from PIL import Image

from tests.support.images import encoded, photo

_FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000"),
    *("ICO", "ICNS", "PPM", "TGA", "PCX", "SGI", "DDS", "IM", "MSP", "XBM", "SPIDER"),
)
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "F")
_SUFFIXES = {"JPEG2000": "jp2", "TIFF": "tif", "SPIDER": "im", "JPEG": "jpg"}


def odd_images() -> dict[str, bytes]:
    """File name -> content. Sorted by name."""
    files = dict[str, bytes]()
    for number, kind in enumerate(_FORMATS):
        for mode in _MODES:
            image = photo(number, (48, 32)).convert("L" if mode in ("I;16", "F") else "RGB")
            with suppress(Exception):  # of pairs that Pillow cannot write
                suffix = _SUFFIXES.get(kind, kind.lower())
                name = f"{kind}_{mode.replace(';', '')}.{suffix}".lower()
                files[name] = encoded(image.convert(mode), kind)
    good = encoded(photo(99, (300, 200)), "JPEG")
    stack = io.BytesIO()
    frames = [photo(seed, (40, 40)) for seed in range(3)]
    frames[0].save(stack, "GIF", save_all=True, append_images=frames[1:])
    files |= {
        "broken_cut.jpg": good[: len(good) // 2],
        "broken_empty.jpg": b"",
        "broken_eps.jpg": encoded(photo(5), "EPS"),
        "broken_pdf.jpg": encoded(photo(6), "PDF"),
        "broken_text.jpg": b"no image at all",
        "frames.gif": stack.getvalue(),
        "huge.png": encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "narrow.png": encoded(Image.new("RGB", (400, 20)), "PNG"),
        "tiny.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "trailing.jpg": good + b"\0" * 5000,
    }
    return dict(sorted(files.items()))
