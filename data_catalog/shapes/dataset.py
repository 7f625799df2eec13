"""The built-in data set of captioned shapes.

An image is 64x64 RGB and shows one shape, which has five attributes: "a small red star in the top
left on a blue background". Further captions of an image leave some of them open, as "a red star".
The same attributes and seed always give the same pixels.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_catalog.shapes.captions import ATTRIBUTE_NAMES, Description, Grammar

NAME = "shapes"
EDGE = 64  # pixels
HOST = "shapes.test"  # a reserved name (RFC 6761): no such host exists outside the loopback server
SUPERSAMPLING = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "yellow": (240, 205, 45),
    "green": (45, 160, 70),
    "blue": (45, 85, 215),
    "purple": (150, 60, 190),
    "white": (240, 240, 240),
}
SIZES: dict[str, float] = {
    "small": 11.0,
    "large": 17.0,
}  # radius of the circumscribed circle, pixels
SHAPES = ("circle", "square", "triangle", "star", "cross")
POSITIONS: dict[str, tuple[float, float]] = {  # centre (x, y), pixels
    "top left": (20.0, 20.0),
    "top right": (44.0, 20.0),
    "center": (32.0, 32.0),
    "bottom left": (20.0, 44.0),
    "bottom right": (44.0, 44.0),
}
HELD_OUT_EVERY = 5
TRAIN_IMAGES = 5400
HELD_OUT_IMAGES = 600

# How far a drawn image deviates from the ideal one.
_CENTRE_JITTER = 1.25  # pixels, each axis
_RADIUS_JITTER = 0.06  # of the radius
_COLOUR_JITTER = 8  # of 255, each channel


Pixels = NDArray[np.uint8]  # [64, 64, 3]


@dataclass(frozen=True, slots=True)
class Attributes:
    """The five attributes of an image."""

    size: str
    colour: str
    shape: str
    position: str
    background: str

    @property
    def caption(self) -> str:
        """The full caption, which names all five."""
        return Description(**asdict(self)).caption

    def described_by(self, description: Description) -> bool:
        """Whether what the description names is true of this image."""
        return all(getattr(self, name) == getattr(description, name) for name in description.named)

    @property
    def held_out(self) -> bool:
        """Whether this combination is held out: one shape in five for every choice of the other
        attributes. This Latin-square rule holds out 20 % of the combinations and leaves every pair
        of attribute values in training."""
        names = tuple(COLOURS)
        ranks = (
            tuple(SIZES).index(self.size),
            names.index(self.colour),
            SHAPES.index(self.shape),
            tuple(POSITIONS).index(self.position),
            names.index(self.background),
        )
        return sum(ranks) % HELD_OUT_EVERY == 0


@cache
def combinations() -> tuple[Attributes, ...]:
    """All 1500 combinations in which the shape and the background differ in colour."""
    product = itertools.product(SIZES, COLOURS, SHAPES, POSITIONS, COLOURS)
    return tuple(Attributes(*values) for values in product if values[1] != values[4])


parse_caption = Grammar(SIZES, COLOURS, SHAPES, POSITIONS).parse


@dataclass(frozen=True, slots=True)
class Drawing:
    """One image of the data set: what it shows, and the seed of its deviations from the ideal."""

    attributes: Attributes
    seed: int

    @property
    def url(self) -> str:
        """The URL of the image on the data set's own server. It encodes the whole drawing."""
        values = (getattr(self.attributes, name).replace(" ", "-") for name in ATTRIBUTE_NAMES)
        return f"http://{HOST}/{'/'.join(values)}/{self.seed}.png"

    @classmethod
    def from_url(cls, url: str) -> Drawing | None:
        """The drawing that a URL encodes, or None if it encodes none."""
        *values, file = urlsplit(url).path.strip("/").split("/")
        seed = file.removesuffix(".png")
        if len(values) != len(ATTRIBUTE_NAMES) or not seed.isdecimal():
            return None
        attributes = Attributes(*(value.replace("-", " ") for value in values))
        return cls(attributes, int(seed)) if attributes in combinations() else None

    def partial_caption(self, number: int) -> str:
        """A caption that leaves at least one attribute open: each choice is equally likely, and
        follows from the seed and the number."""
        rng = np.random.default_rng((self.seed, number))
        choice = int(rng.integers(2 ** len(ATTRIBUTE_NAMES) - 1))
        named = [name for bit, name in enumerate(ATTRIBUTE_NAMES) if choice >> bit & 1]
        return Description(**{name: getattr(self.attributes, name) for name in named}).caption

    def pixels(self) -> Pixels:
        return draw(self.attributes, np.random.default_rng(self.seed))

    def png(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels()).save(buffer, format="PNG")
        return buffer.getvalue()


def drawings(count: int, *, held_out: bool, seed: int = 0) -> Iterator[Drawing]:
    """Yield `count` drawings. Every combination occurs once per round, in a new random order."""
    pool = [attributes for attributes in combinations() if attributes.held_out is held_out]
    rng = np.random.default_rng((seed, held_out))
    order: list[int] = []
    for index in range(count):
        if not order:
            order = rng.permutation(len(pool)).tolist()
        yield Drawing(pool[order.pop()], seed=int(rng.integers(2**48)) * 2 + index % 2)


def draw(attributes: Attributes, rng: np.random.Generator) -> Pixels:
    """Draw one image, uint8 [64, 64, 3]."""
    x, y = POSITIONS[attributes.position]
    x, y = np.array([x, y]) + rng.uniform(-_CENTRE_JITTER, _CENTRE_JITTER, 2)
    radius = SIZES[attributes.size] * (1 + rng.uniform(-_RADIUS_JITTER, _RADIUS_JITTER))
    ink, paper = (
        np.clip(
            np.array(COLOURS[name]) + rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, 3), 0, 255
        )
        for name in (attributes.colour, attributes.background)
    )

    alpha = coverage(attributes.shape, x, y, radius)[..., None]
    return np.round(alpha * ink + (1 - alpha) * paper).astype(np.uint8)


def coverage(shape: str, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """The fraction of each pixel that the shape covers, float [64, 64] in [0, 1]."""
    scale = SUPERSAMPLING
    mask = Image.new("L", (EDGE * scale, EDGE * scale))
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        pen.ellipse(
            [(v * scale) for v in (x - radius, y - radius, x + radius, y + radius)], fill=255
        )
    else:
        pen.polygon(
            [((x + radius * u) * scale, (y + radius * v) * scale) for u, v in _outline(shape)],
            fill=255,
        )
    return np.asarray(mask.resize((EDGE, EDGE), Image.Resampling.BILINEAR), dtype=np.float64) / 255


@cache
def _outline(shape: str) -> tuple[tuple[float, float], ...]:
    """The corners of a polygon in the unit circle. The y axis points down."""

    def on_circle(
        turns: Sequence[float], radii: Sequence[float]
    ) -> tuple[tuple[float, float], ...]:
        return tuple(
            (r * math.sin(2 * math.pi * t), -r * math.cos(2 * math.pi * t))
            for t, r in zip(turns, radii, strict=True)
        )

    match shape:
        case "square":
            return on_circle([1 / 8, 3 / 8, 5 / 8, 7 / 8], [1.0] * 4)
        case "triangle":
            return on_circle([0, 1 / 3, 2 / 3], [1.0] * 3)
        case "star":
            return on_circle([i / 10 for i in range(10)], [1.0, 0.44] * 5)
        case "cross":
            a, b = 0.93, 0.31
            arm = ((-b, -a), (b, -a), (b, -b))  # the upper arm and the corner right of it
            turns = ((1, 0), (0, 1), (-1, 0), (0, -1))  # cosine and sine of each quarter turn
            return tuple(
                (u * cos - v * sin, u * sin + v * cos) for cos, sin in turns for u, v in arm
            )
    raise ValueError(f"unknown shape {shape!r}; known shapes: {', '.join(SHAPES)}")
