"""HTML pages rendered from templates, self-contained so that they open without a network."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)
_SMALL = 128  # pixels: smaller images are stored without loss


def render_page(template: str, **values: Any) -> str:
    """Render a template of this folder as HTML."""
    return _ENVIRONMENT.get_template(template).render(**values)


def image_uri(pixels: NDArray[np.uint8]) -> str:
    """An image [h, w, 3] as a data URI: small images as lossless PNG, larger ones as JPEG, which
    takes a tenth of the size for photographs."""
    buffer = io.BytesIO()
    small = max(pixels.shape[:2]) < _SMALL
    Image.fromarray(pixels).save(buffer, format="PNG" if small else "JPEG", quality=88)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def data_uri(image: Image.Image) -> str:
    """An image as a data URI in PNG format."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
