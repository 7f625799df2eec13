"""Captions of the shapes data set: what an image shows, in words, with attributes left open.

A caption is "a [size] [colour] SHAPE [in the POSITION] [on a BACKGROUND background]". Each of the
five attributes may be left open; the noun is then "shape". If the background alone is named, the
caption is "a BACKGROUND background".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

OPEN_SHAPE = "shape"  # the noun of a caption that names no shape


@dataclass(frozen=True, slots=True)
class Description:
    """The attributes that a caption names. None means that it leaves the attribute open."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    position: str | None = None
    background: str | None = None

    @property
    def caption(self) -> str:
        if self == Description(background=self.background) and self.background:
            return f"a {self.background} background"
        noun = " ".join(filter(None, ("a", self.size, self.colour, self.shape or OPEN_SHAPE)))
        position = f" in the {self.position}" if self.position else ""
        return noun + position + (f" on a {self.background} background" if self.background else "")

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the attributes that the caption names."""
        return tuple(name for name in ATTRIBUTE_NAMES if getattr(self, name) is not None)

    @property
    def left_open(self) -> tuple[str, ...]:
        """Names of the other attributes."""
        return tuple(name for name in ATTRIBUTE_NAMES if getattr(self, name) is None)


ATTRIBUTE_NAMES = tuple(field.name for field in fields(Description))


class Grammar:
    """Reads captions of a vocabulary."""

    def __init__(
        self,
        sizes: Collection[str],
        colours: Collection[str],
        shapes: Collection[str],
        positions: Collection[str],
    ) -> None:
        colour = _one_of(colours)
        self._caption = re.compile(
            rf"a(?: (?P<size>{_one_of(sizes)}))?(?: (?P<colour>{colour}))?"
            rf" (?:{OPEN_SHAPE}|(?P<shape>{_one_of(shapes)}))"
            rf"(?: in the (?P<position>{_one_of(positions)}))?"
            rf"(?: on a (?P<background>{colour}) background)?"
        )
        self._background = re.compile(rf"a (?P<background>{colour}) background")

    def parse(self, caption: str) -> Description | None:
        """What a caption names, or None if it is not of this form or gives a shape the colour of
        its background."""
        match = self._background.fullmatch(caption) or self._caption.fullmatch(caption)
        if match is None:
            return None
        description = Description(**match.groupdict())
        same = description.colour is not None and description.colour == description.background
        return None if same else description


def _one_of(words: Iterable[str]) -> str:
    return "|".join(words)
