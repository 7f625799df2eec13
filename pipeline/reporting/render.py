"""Pages for people: HTML from templates, self-contained, opens without network."""

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
_SMALL = 128  # pixels


def render_page(template: str, **values: Any) -> str:
    """A template of this folder as HTML."""
    return _ENVIRONMENT.get_template(template).render(**values)


def image_uri(pixels: NDArray[np.uint8]) -> str:
    """A picture [h, w, 3] inside the page: small ones without loss, photographs in a tenth of their
    size."""
    buffer = io.BytesIO()
    small = max(pixels.shape[:2]) < _SMALL
    Image.fromarray(pixels).save(buffer, format="PNG" if small else "JPEG", quality=88)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def data_uri(image: Image.Image) -> str:
    """A picture inside the page itself."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
