"""What pages are made of: pictures and curves inside the page itself."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from pipeline.reporting.charts import Points, curves
from pipeline.reporting.render import image_uri


def decoded(uri: str) -> tuple[str, bytes]:
    kind, _, content = uri.removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(content)


def test_small_images_are_lossless_and_large_ones_small() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    kind, content = decoded(image_uri(small))
    assert kind == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), small)

    soft = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
    kind, content = decoded(image_uri(np.asarray(soft)))
    assert kind == "image/jpeg"
    png = io.BytesIO()
    soft.save(png, format="PNG")
    assert len(content) < len(png.getvalue()) / 2


def test_curves_name_their_lines_ask_for_nothing_and_are_the_same_every_time() -> None:
    lines: dict[str, Points] = {
        "noisy": [(float(step), 1 / step) for step in range(1, 201)],
        "few": [(1.0, 2.0), (2.0, 1.0)],
    }
    kind, content = decoded(curves(lines, "loss"))
    text = content.decode()
    assert kind == "image/svg+xml"
    assert all(f">{name}</text>" in text for name in ("noisy", "few", "loss", "step"))
    assert {address.split("/")[2] for address in re.findall(r"https?://[^\"' <]+", text)} == {
        "www.w3.org"
    }
    assert curves(lines, "loss") == curves(lines, "loss")
