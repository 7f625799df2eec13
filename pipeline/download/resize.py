"""Bytes from the web -> an upright, opaque, 8-bit RGB square, or the named cause why not. One
decoding.

Stands where img2dataset's resizer would. Knows nothing of where the bytes came from.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from data_catalog.image_formats import LARGEST_PROFILE, TooManyScans, open_image
from pipeline.compute.isolated_process import TOO_SLOW

# Bicubic with Pillow's antialiasing, on a JPEG decoded at a half, quarter or eighth where that is
# still large enough: 49 dB from the full Lanczos at twice its speed, and 1.5 times as fast as
# OpenCV's area filter on the full picture.
_FILTER, _REDUCING_GAP = Image.Resampling.BICUBIC, 2.0
_PILLOW_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
_PNG_EFFORT = 6
_OFF_SRGB = 16  # levels of 255 by which a profile may differ from sRGB and be taken for it
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what undoes it; from 5 on, width and height change places
_FIRST_SIDEWAYS = 5

Resized = tuple[bytes | None, int | None, int | None, int | None, int | None, str | None]
"""img2dataset's answer: picture, width, height, original width, original height, cause of
refusal"""


class Unusable(ValueError):
    """A picture that can't be used; the message is a cause that can be counted."""


@dataclass(frozen=True, slots=True)
class SquareResizer:
    """The largest centered square of a picture, `edge` pixels wide, encoded again."""

    edge: int
    encode_format: str  # "jpg", "png", "webp"
    quality: int  # of jpg and webp
    min_side: int  # a shorter side is refused; below `edge` this allows enlarging
    max_pixels: float  # by the header, before anything is decoded
    max_aspect_ratio: float
    hashes: dict[str, str] | None = (
        None  # if there: is given the perceptual hash of each picture, by its file's SHA-256
    )

    def __call__(self, stream: io.BytesIO, _boxes: object = None) -> Resized:
        """Called from one thread of a process (the warnings' filter belongs to the process). Raises
        MemoryError."""
        try:
            with (
                warnings.catch_warnings()
            ):  # Pillow warns of sizes and of bad metadata: settled here
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
        """The answer for a file, and its perceptual hash as in `hashes`. Raises MemoryError."""
        if self.hashes is None:
            return self(io.BytesIO(body)), {}
        self.hashes.clear()
        return self(io.BytesIO(body)), dict(self.hashes)

    def _square(self, image: Image.Image) -> tuple[Image.Image, int, int]:
        """The square picture, and the upright original's width and height. Raises Unusable."""
        width, height = image.size
        short, long = sorted(image.size)
        if width * height > self.max_pixels:
            raise Unusable("image area too large")
        if short < self.min_side:
            raise Unusable("image too small")
        if long > self.max_aspect_ratio * short:
            raise Unusable("aspect ratio too large")

        # A JPEG is read whole and decoded small; other formats have no such mode.
        image.draft("RGB", (-(-self.edge * width // short), -(-self.edge * height // short)))
        _scale_transparency(image)
        image.load()
        orientation, profile = _orientation(image), image.info.get("icc_profile")
        small = _to_8_bits(_crop_and_resize(_resizable(image), self.edge))
        if orientation in _UPRIGHT:
            small = small.transpose(_UPRIGHT[orientation])
        if orientation >= _FIRST_SIDEWAYS:
            width, height = height, width
        return _to_srgb(_on_white(small), profile), width, height

    def _encode(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        options = (
            {"compress_level": _PNG_EFFORT}
            if self.encode_format == "png"
            else {"quality": self.quality}
        )
        image.info = {}  # the original's metadata would be stored too
        image.save(buffer, _PILLOW_FORMATS[self.encode_format], **options)
        return buffer.getvalue()


def _scale_transparency(image: Image.Image) -> None:
    """The transparent colour of a PNG, which Pillow tells as it is in the file, in the range of its
    pixels, which Pillow scales to 8 bits. To be called before they are loaded."""
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
    except (
        Exception
    ):  # metadata written by anyone: a picture with broken metadata is still a picture
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """Any mode -> L, RGB, RGBA, CMYK, I or F, the modes that are resized without loss"""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        transparent = image.info.get("transparency")  # of 16 bits, as the pixels
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
    """RGBA of which these pixels are transparent."""
    rgba = grey.convert("RGBA")
    rgba.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    return rgba


def _crop_and_resize(image: Image.Image, edge: int) -> Image.Image:
    """Whole pixels at the border of the crop, so that a picture of the right height isn't
    resampled"""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((edge, edge), _FILTER, box, _REDUCING_GAP)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """32-bit integers and floats from the first customary range that holds them, give or take the
    filter's overshoot"""
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


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB through the picture's colour profile where it has a usable one; on the small picture, so
    cheap"""
    if profile and len(profile) <= LARGEST_PROFILE:
        try:
            if transform := _transform_to_srgb(profile, image.mode):
                return ImageCms.applyTransform(image, transform) or image
        except (
            Exception
        ):  # written by anyone, or for another mode: the plain conversion is near enough
            pass
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> Any:
    """None where the profile is sRGB already: then the pixels stay as they are"""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if (
        mode == "RGB"
        and "srgb" in ImageCms.getProfileDescription(source).lower()
        and _changes_little(transform)
    ):
        return None
    return transform


def _changes_little(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether greys and primaries stay what they are: a name may say sRGB of a linear profile."""
    levels = np.arange(0, 256, 15).astype(np.uint8)
    zeros = np.zeros_like(levels)
    probes = [
        (levels, levels, levels),
        (levels, zeros, zeros),
        (zeros, levels, zeros),
        (zeros, zeros, levels),
    ]
    before = np.stack([np.stack(probe, -1) for probe in probes])  # [4, n, 3]
    changed = ImageCms.applyTransform(Image.fromarray(before), transform)
    assert changed is not None
    return int(np.abs(np.asarray(changed).astype(int) - before).max()) <= _OFF_SRGB
