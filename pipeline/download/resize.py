"""Resizing: bytes from the web become an upright, opaque, 8-bit RGB square.

An image that cannot be used is refused with a cause that can be counted. Each image is decoded
once. SquareResizer replaces img2dataset's resizer.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from data_catalog.image_formats import TooManyScans, open_image
from pipeline.compute.isolated_process import TOO_SLOW
from pipeline.download.color_profile import to_srgb

# Bicubic with Pillow's antialiasing, on a JPEG decoded at a half, quarter or eighth of its size if
# that is still large enough: 49 dB from the full Lanczos at twice its speed, and 1.5 times as fast
# as OpenCV's area filter on the full image.
_FILTER, _REDUCING_GAP = Image.Resampling.BICUBIC, 2.0
_PILLOW_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
_PNG_EFFORT = 6
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the transpose that undoes it; from 5 on, width and height are swapped
_FIRST_SIDEWAYS = 5

Resized = tuple[bytes | None, int | None, int | None, int | None, int | None, str | None]
"""What img2dataset expects of a resizer: image, width, height, original width, original height,
cause of refusal."""


class Unusable(ValueError):
    """An image that cannot be used; the message is a cause that can be counted."""


@dataclass(frozen=True, slots=True)
class SquareResizer:
    """Crops the largest centered square of an image, resizes it to `edge` pixels and encodes it."""

    edge: int
    encode_format: str  # "jpg", "png", "webp"
    quality: int  # of jpg and webp
    min_side: int  # a shorter side is refused; a value below `edge` allows enlarging
    max_pixels: float  # checked by the header, before decoding
    max_aspect_ratio: float
    hashes: dict[str, str] | None = (
        None  # if not None, receives the perceptual hash of each image: SHA-256 of its file -> hash
    )

    def __call__(self, stream: io.BytesIO, _boxes: object = None) -> Resized:
        """Resize one file. Only one thread of a process may call this, because the filter of
        warnings belongs to the process. Raises MemoryError."""
        try:
            with (
                warnings.catch_warnings()
            ):  # Pillow warns of sizes and bad metadata; both are handled here
                warnings.simplefilter("ignore")
                with open_image(stream) as image:
                    square, width, height = self._square(image)
                if self.hashes is not None:
                    self.hashes[hashlib.sha256(stream.getbuffer()).hexdigest()] = str(
                        imagehash.phash(square)
                    )
                return self._encode(square), self.edge, self.edge, width, height, None
        except Unusable as refusal:
            cause = str(refusal)
        except UnidentifiedImageError:
            cause = "not an image"
        except Image.DecompressionBombError:
            cause = "image area too large"
        except TooManyScans:
            cause = TOO_SLOW
        except MemoryError:
            raise
        except Exception:  # decoders of damaged files raise nearly anything
            cause = "truncated or damaged image"
        return None, None, None, None, None, cause

    def of_body(self, body: bytes) -> tuple[Resized, dict[str, str]]:
        """Resize one file and return its perceptual hash, as in `hashes`, beside the result. Raises
        MemoryError."""
        if self.hashes is None:
            return self(io.BytesIO(body)), {}
        self.hashes.clear()
        return self(io.BytesIO(body)), dict(self.hashes)

    def _square(self, image: Image.Image) -> tuple[Image.Image, int, int]:
        """The square, and the width and height of the upright original. Raises Unusable."""
        width, height = image.size
        short, long = sorted(image.size)
        if width * height > self.max_pixels:
            raise Unusable("image area too large")
        if short < self.min_side:
            raise Unusable("image too small")
        if long > self.max_aspect_ratio * short:
            raise Unusable("aspect ratio too large")

        # A JPEG is read whole and decoded at a smaller size; other formats have no such mode.
        image.draft("RGB", (-(-self.edge * width // short), -(-self.edge * height // short)))
        _scale_transparency(image)
        image.load()
        orientation, profile = _orientation(image), image.info.get("icc_profile")
        small = _to_8_bits(_crop_and_resize(_resizable(image), self.edge))
        if orientation in _UPRIGHT:
            small = small.transpose(_UPRIGHT[orientation])
        if orientation >= _FIRST_SIDEWAYS:
            width, height = height, width
        return to_srgb(_on_white(small), profile), width, height

    def _encode(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        options = (
            {"compress_level": _PNG_EFFORT}
            if self.encode_format == "png"
            else {"quality": self.quality}
        )
        image.info = {}  # otherwise the metadata of the original would be stored too
        image.save(buffer, _PILLOW_FORMATS[self.encode_format], **options)
        return buffer.getvalue()


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG to 8 bits, as Pillow scales the pixels; Pillow itself
    returns that colour as it is in the file. Must be called before the pixels are loaded."""
    transparent, raw = image.info.get("transparency"), _raw_mode(image)
    if isinstance(transparent, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if raw == "L;2" else 17)
    if isinstance(transparent, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in transparent)


def _raw_mode(image: Image.Image) -> str | None:
    tiles = getattr(image, "tile", None)
    return tiles[0].args if tiles and isinstance(tiles[0].args, str) else None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # anyone may have written the metadata; without it the image is still usable
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """Convert any mode to L, RGB, RGBA, CMYK, I or F: the modes that are resized without loss."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        transparent = image.info.get("transparency")  # 16 bits, as the pixels have
        return (
            _with_transparency(grey, values == transparent)
            if isinstance(transparent, int)
            else grey
        )
    if image.mode == "RGBA":
        return image
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBa"):
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK", "I", "F"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _with_transparency(grey: Image.Image, transparent: NDArray[np.bool_]) -> Image.Image:
    """The image as RGBA with these pixels transparent."""
    rgba = grey.convert("RGBA")
    rgba.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    return rgba


def _crop_and_resize(image: Image.Image, edge: int) -> Image.Image:
    """Crop at whole pixels, so that an image that has the right height already is not
    resampled."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((edge, edge), _FILTER, box, _REDUCING_GAP)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers and floats from the first customary range that contains them; 10 %
    above it is taken for the overshoot of the filter."""
    if image.mode not in ("I", "F"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max())
    ranges = [255.0, 65535.0, top] if image.mode == "I" else [1.0, 255.0, 65535.0, top]
    values *= 255 / next(most for most in ranges if top <= 1.1 * most)
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
