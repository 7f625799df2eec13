"""Pictures as the web has them, and what becomes of them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pipeline.download.resize import SquareResizer
from tests.support.bombs import jpeg_of_scans, png
from tests.support.images import encoded, photo


def resize(body: bytes, **changed: Any) -> tuple[NDArray[np.uint8] | str, tuple[int | None, ...]]:
    """The square's pixels or the cause, and the four sizes."""
    settings: dict[str, Any] = {"edge": 64, "encode_format": "png", "quality": 95}
    settings |= {"min_side": 64, "max_pixels": 64e6, "max_aspect_ratio": 4.0}
    picture, *sizes, cause = SquareResizer(**{**settings, **changed})(io.BytesIO(body))
    assert (picture is None) != (cause is None)
    pixels: NDArray[np.uint8] | str = cause or np.asarray(Image.open(io.BytesIO(picture or b"")))
    return pixels, tuple(sizes)


def pixels_of(body: bytes, **changed: Any) -> NDArray[np.uint8]:
    pixels, _ = resize(body, **changed)
    assert not isinstance(pixels, str), pixels
    assert pixels.shape == (64, 64, 3)
    return pixels


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    original = photo(1, (64, 64))
    np.testing.assert_array_equal(pixels_of(encoded(original, "PNG")), np.asarray(original))
    wide = photo(1, (150, 64))
    np.testing.assert_array_equal(pixels_of(encoded(wide, "PNG")), np.asarray(wide)[:, 43:107])


def test_the_center_is_kept_and_the_sizes_are_told() -> None:
    pixels, sizes = resize(encoded(photo(2, (300, 200)), "JPEG"))
    assert sizes == (64, 64, 300, 200)
    expected = (
        photo(2, (300, 200)).crop((50, 0, 250, 200)).resize((64, 64), Image.Resampling.LANCZOS)
    )
    assert difference(np.asarray(pixels), np.asarray(expected)) < 2


def test_a_large_jpeg_decoded_small_looks_like_one_decoded_whole() -> None:
    large = photo(3, (1500, 1000))
    expected = large.crop((250, 0, 1250, 1000)).resize((64, 64), Image.Resampling.LANCZOS)
    assert difference(pixels_of(encoded(large, "JPEG", quality=95)), np.asarray(expected)) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright(orientation: int) -> None:
    stored = photo(4, (120, 90))
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(stored, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    assert upright
    pixels, sizes = resize(body)
    assert sizes[2:] == upright.size
    expected, _ = resize(encoded(Image.fromarray(np.asarray(upright)), "PNG"))
    assert difference(np.asarray(pixels), np.asarray(expected)) < 1


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    grey = pixels_of(encoded(Image.fromarray(ramp), "PNG"))
    np.testing.assert_array_equal(grey[..., 0], ramp >> 8)
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize(
    ("dtype", "top", "scale"),
    [
        (np.int32, 65535, 257),
        (np.int32, 200, 1),
        (np.float32, 1.0, 1 / 255),
        (np.float32, 250.0, 1),
    ],
)
def test_integers_and_floats_are_scaled_from_the_range_they_are_in(
    dtype: Any, top: float, scale: float
) -> None:
    ramp = np.tile(np.linspace(0, top, 64), (64, 1)).astype(dtype)
    grey = pixels_of(encoded(Image.fromarray(ramp), "TIFF"))
    assert np.abs(grey[..., 1] - ramp / scale).max() <= 1


def test_a_range_is_told_from_its_neighbour_after_resizing_too() -> None:
    steps = np.zeros((300, 300), np.float32)
    steps[:, 150:] = 1.0  # a cubic filter overshoots beside an edge
    grey = pixels_of(encoded(Image.fromarray(steps), "TIFF"))
    assert grey[30, 5].max() == 0
    assert grey[30, 60].min() == 255


def test_floats_that_are_no_numbers_do_not_spoil_the_others() -> None:
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1)).astype(np.float32)
    ramp[0, 0], ramp[0, 1] = np.nan, np.inf
    assert (
        np.abs(pixels_of(encoded(Image.fromarray(ramp), "TIFF"))[1:, :, 0] - ramp[1:] * 255).max()
        <= 1
    )


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("P", "PNG"), ("1", "PNG"), ("RGB", "BMP")],
)
def test_every_mode_becomes_colour(mode: str, kind: str) -> None:
    original = photo(5, (80, 80))
    converted = original.convert(mode)
    expected = np.asarray(converted.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
    assert difference(pixels_of(encoded(converted, kind)), expected) < (
        25 if mode in ("P", "1") else 6
    )


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF"])
def test_newer_and_older_formats_are_read(kind: str) -> None:
    original = photo(6, (80, 80))
    expected = np.asarray(original.resize((64, 64), Image.Resampling.LANCZOS))
    assert difference(pixels_of(encoded(original, kind)), expected) < 6


def test_transparency_is_white_in_every_form() -> None:
    clear = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    assert pixels_of(encoded(clear, "PNG")).min() == 255
    assert pixels_of(encoded(clear, "WEBP")).min() == 255
    assert pixels_of(encoded(Image.new("LA", (80, 80), (0, 0)), "PNG")).min() == 255
    assert pixels_of(encoded(Image.new("P", (80, 80), 0), "GIF", transparency=0)).min() == 255
    assert (
        pixels_of(encoded(Image.new("RGB", (80, 80), "red"), "PNG", transparency=(255, 0, 0))).min()
        == 255
    )
    half = pixels_of(encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 128)), "PNG"))
    assert half[5, 5].tolist() == [255, 127, 127]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (80, 80), "lime"), Image.new("RGB", (80, 80), "blue")
    body = encoded(first, kind, save_all=True, append_images=[second], duration=100)
    assert np.abs(pixels_of(body)[32, 32].astype(int) - [0, 255, 0]).max() <= 3


def test_a_colour_profile_is_applied_and_srgb_is_left_alone() -> None:
    grey = Image.new("RGB", (64, 64), (120, 120, 120))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (pixels_of(encoded(grey, "PNG", icc_profile=srgb)) == 120).all()
    other = _with_gamma(srgb, 1.0)
    lighter = pixels_of(encoded(grey, "PNG", icc_profile=other))
    assert lighter.min() > 170, "47 % of linear light is a lighter grey in sRGB"
    assert (pixels_of(encoded(grey, "PNG", icc_profile=b"no profile at all" * 20)) == 120).all()


def _with_gamma(profile: bytes, gamma: float, keep_name: bool = False) -> bytes:
    """sRGB's primaries with a plain exponent, most often under another name"""
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256))
    changed = bytearray(profile)
    for i in range(struct.unpack(">I", profile[128:132])[0]):
        name, offset, size = struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            changed[offset : offset + len(curve)] = curve
            changed[140 + 12 * i : 144 + 12 * i] = struct.pack(">I", len(curve))
        if name == b"desc" and not keep_name:
            changed[offset + 8 : offset + size] = bytes(size - 8)
    return bytes(changed)


def test_metadata_of_the_original_is_not_stored() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    for encode_format in ("jpg", "png", "webp"):
        body = encoded(photo(7), "JPEG", exif=exif, comment=b"secret", icc_profile=b"x" * 100)
        picture = SquareResizer(64, encode_format, 95, 64, 64e6, 4.0)(io.BytesIO(body))[0]
        assert picture
        stored = Image.open(io.BytesIO(picture))
        assert not dict(stored.getexif())
        assert not {"comment", "icc_profile", "exif"} & set(stored.info)


def test_quality_and_format_are_the_configured_ones() -> None:
    def stored(encode_format: str, quality: int) -> bytes:
        picture = SquareResizer(64, encode_format, quality, 64, 64e6, 4.0)(
            io.BytesIO(encoded(photo(8), "PNG"))
        )[0]
        assert picture
        return picture

    assert Image.open(io.BytesIO(stored("webp", 90))).format == "WEBP"
    assert len(stored("jpg", 50)) < len(stored("jpg", 95))


def test_a_small_picture_is_dropped_unless_enlarging_is_asked_for() -> None:
    small = encoded(photo(9, (60, 90)), "PNG")
    assert resize(small)[0] == "image too small"
    pixels, sizes = resize(small, min_side=60)
    assert np.asarray(pixels).shape == (64, 64, 3)
    assert sizes == (64, 64, 60, 90)


def test_a_picture_that_is_too_long_is_dropped() -> None:
    assert resize(encoded(photo(10, (64, 257)), "PNG"))[0] == "aspect ratio too large"
    assert not isinstance(resize(encoded(photo(10, (256, 64)), "PNG"))[0], str)


def test_area_is_judged_by_the_header_before_decoding() -> None:
    assert resize(_png_header(16_000))[0] == "image area too large"
    assert (
        resize(encoded(photo(11, (200, 200)), "PNG"), max_pixels=39_999)[0]
        == "image area too large"
    )


def test_between_pillows_warning_and_its_limit_nothing_is_said() -> None:
    """Warnings are errors in these tests: Pillow would warn of more than 89 megapixels."""
    assert resize(_png_header(9_600), max_pixels=178e6)[0] == "truncated or damaged image"
    assert resize(_png_header(60_000), max_pixels=178e6)[0] == "image area too large"


def _png_header(edge: int) -> bytes:
    """A PNG that is cut off where its pixels begin."""
    start = struct.pack(">I", 1000) + b"IDAT"
    data = b"IHDR" + struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + data
        + struct.pack(">I", zlib.crc32(data))
        + start
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_half_a_picture_is_refused(kind: str) -> None:
    body = encoded(photo(12, (300, 200)), kind)
    assert resize(body[: len(body) // 2])[0] in ("truncated or damaged image", "not an image")
    assert not isinstance(resize(body)[0], str)


@pytest.mark.parametrize(
    "body", [b"", b"<html></html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", bytes(1000)]
)
def test_what_is_no_picture_is_called_so(body: bytes) -> None:
    assert resize(body)[0] in ("not an image", "truncated or damaged image")


def test_noise_in_any_place_never_raises() -> None:
    rng = np.random.default_rng(0)
    causes = set()
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        original = encoded(photo(13, (100, 80)), kind)
        for _ in range(30):
            body = bytearray(original)
            for place in rng.integers(0, len(body), 8):
                body[place] = rng.integers(256)
            result, _ = resize(bytes(body))
            if isinstance(result, str):
                causes.add(result)
    assert causes <= {
        *("not an image", "truncated or damaged image"),
        *("image area too large", "image too small", "aspect ratio too large"),
    }


@pytest.mark.parametrize("where", ["before", "behind"])
def test_text_of_a_png_of_whatever_length_and_number_costs_nothing(where: str) -> None:
    picture = encoded(photo(14, (64, 64)), "PNG")
    long = zlib.compress(bytes(8 << 20))
    chunks = [(b"zTXt", b"Comment\0\0" + long), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long)]
    chunks += [(b"tEXt", b"workflow\0" + b"{}" * (1 << 20)), (b"iCCP", b"huge\0\0" + long)]
    chunks += [(b"tEXt", b"note\0" + bytes(100))] * 2000
    text = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    place = 33 if where == "before" else picture.rindex(b"IEND") - 4
    dirty = picture[:place] + text + picture[place:]
    np.testing.assert_array_equal(pixels_of(dirty), pixels_of(picture))


def test_an_orientation_in_the_text_of_a_png_is_still_read() -> None:
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'
    row = bytes([200, 0, 0] * 32 + [0, 0, 200] * 32)
    upright, turned = (pixels_of(png(64, 8, 2, row, chunks)) for chunks in ([], [(b"iTXt", xmp)]))
    np.testing.assert_array_equal(turned, upright[::-1, ::-1])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_is_found_at_every_depth(depth: int, colour: int) -> None:
    if colour == 2 and depth < 8:
        return  # no such PNG
    level, channels = max(1, (1 << depth) // 3), 3 if colour == 2 else 1
    bits = "0" * depth * channels * 32 + format(level, f"0{depth}b") * channels * 32
    clear = struct.pack(">H", level) * channels
    seen = pixels_of(
        png(64, depth, colour, int(bits, 2).to_bytes(len(bits) // 8), [(b"tRNS", clear)])
    )
    assert seen[32, 5].tolist() == [0, 0, 0]
    assert seen[32, 60].tolist() == [255, 255, 255]


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_profile_that_is_srgb_by_name_alone_is_applied(gamma: float) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = _with_gamma(profile, gamma, keep_name=True)
    assert (
        "srgb"
        in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(named))).lower()
    )
    grey = encoded(Image.new("RGB", (64, 64), (120, 120, 120)), "PNG", icc_profile=named)
    expected = 255 * _srgb((120 / 255) ** gamma)
    assert abs(pixels_of(grey).mean() - expected) < 2


def _srgb(linear: float) -> float:
    return float(1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_jpeg_of_more_scans_than_any_photograph_is_not_decoded() -> None:
    assert resize(jpeg_of_scans(101))[0] == "takes too long to decode"
    assert not isinstance(resize(jpeg_of_scans(20))[0], str)
    behind = (
        encoded(photo(15), "JPEG") + b"\xff\xda" * 1000
    )  # as in a photograph with a film behind it
    assert not isinstance(resize(behind)[0], str)
