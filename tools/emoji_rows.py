"""The rows of a set of emoji: which picture has which caption, and which are held out.

A pair of a concept and a family of styles is held out together, so that no rendering of a held-out
drawing is trained on. Hashes decide, so that the rows are the same on every machine and most pairs
keep their split if styles are added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tools.emoji_styles import Concept, Drawing, EmojiStyle

HELD_OUT_SHARE = 0.08
"""Of the pairs that may be held out; about one row of fifteen then is."""
FAMILIES_LEFT = 4
"""A concept stays in the training pictures of at least so many families."""


@dataclass(frozen=True, slots=True)
class EmojiRow:
    """One picture of the set."""

    number: int
    concept: Concept
    style: EmojiStyle
    split: str
    """train or held_out."""
    drawing: Drawing

    @property
    def key(self) -> str:
        """The name of its members in the tar, without suffix."""
        return f"{self.number:06d}"

    @property
    def caption(self) -> str:
        """For example "red apple, Google Noto style"."""
        return f"{self.concept.name}, {self.style.name} style"

    def members(self, raster: Drawing) -> dict[str, bytes]:
        """The files of the row, by name, with the drawing as it is stored."""
        file = f"{self.key}.{raster.suffix}"
        columns = {
            "key": self.key,
            "caption": self.caption,
            "concept": self.concept.name,
            "tags": self.concept.tags,
            "style": self.style.name,
            "family": self.style.family,
            "group": self.concept.group,
            "split": self.split,
            "licence": self.style.licence,
            "file": file,
        }
        return {
            file: raster.content,
            f"{self.key}.txt": self.caption.encode(),
            f"{self.key}.json": json.dumps(columns, ensure_ascii=False).encode(),
        }


def emoji_rows(
    concepts: Sequence[Concept], drawings: Mapping[EmojiStyle, Mapping[str, Drawing]]
) -> list[EmojiRow]:
    """All rows, in an order without a pattern; `drawings` are by style and name of the concept."""
    by_name = {concept.name: concept for concept in concepts}
    pictures = sorted(
        ((name, style) for style, drawn in drawings.items() for name in drawn),
        key=lambda picture: _fraction("order", picture[0], picture[1].name),
    )
    families: dict[str, set[str]] = {}
    for name, style in pictures:
        families.setdefault(name, set()).add(style.family)
    held_out = {name: held_out_families(name, drawn) for name, drawn in families.items()}
    return [
        EmojiRow(
            number,
            by_name[name],
            style,
            "held_out" if style.family in held_out[name] else "train",
            drawings[style][name],
        )
        for number, (name, style) in enumerate(pictures)
    ]


def held_out_families(concept: str, families: Collection[str]) -> set[str]:
    """The families whose drawings of a concept are held out, of those that have drawn it."""
    places = sorted((_fraction("split", concept, family), family) for family in families)
    most = max(0, len(families) - FAMILIES_LEFT)
    return {family for place, family in places[:most] if place < HELD_OUT_SHARE}


def _fraction(*words: str) -> float:
    """A number in [0, 1) that the words determine."""
    digest = hashlib.sha256("\n".join(words).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
