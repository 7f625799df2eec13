"""The emoji that `emoji_tars` knows: their names, and the drawings of each style.

emoji_styles.yaml lists the styles. Names and keywords are those of the Unicode CLDR, as the
package emojibase-data has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from tools.npm_packages import NpmPackage, PackageFolder

EDGE = 96
"""Pixels of a drawing made from vectors."""


@dataclass(frozen=True, slots=True)
class Concept:
    """What an emoji shows."""

    name: str
    """For example "red apple"."""
    code: str
    """Its code points in lower-case hexadecimal, joined by hyphens, without variation selectors."""
    tags: str
    group: str

    @property
    def slug(self) -> str:
        """Its name in the form of an icon's name."""
        return _slug(self.name)

    @property
    def icons(self) -> tuple[str, ...]:
        """The names that icon sets may have for it, the most usual first."""
        if not self.name.startswith("flag: "):
            return (self.slug, f"{self.slug}-1", f"{self.slug}-2")
        country = self.name.removeprefix("flag: ")
        full = _slug(country.replace("&", "and"))
        return (self.slug, f"flag-for-{full}", f"flag-for-flag-{full}", full)


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image file."""

    content: bytes
    suffix: str
    """svg, png or webp."""


class EmojiStyle(BaseModel):
    """A style, with what is due to those who drew it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As captions name it: "red apple, Google Noto style"."""
    family: str
    licence: str
    credit: str
    homepage: str
    package: NpmPackage
    folder: str | None = None
    named_by: str | None = None
    """Another style, whose icon set has the same names and their code points in chars.json."""

    @property
    def share_alike(self) -> bool:
        """Whether adaptations of the drawings have to be published under their licence."""
        return "-SA-" in self.licence


class EmojiStyles(BaseModel):
    """The table of styles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: NpmPackage
    """The package of the names of emoji."""
    styles: tuple[EmojiStyle, ...]

    def packages(self, styles: Sequence[EmojiStyle]) -> list[NpmPackage]:
        """What these styles need."""
        needed = (package for style in styles for package in (style.package, self._naming(style)))
        return list(dict.fromkeys((self.names, *needed)))

    def concepts(self, packages: PackageFolder) -> list[Concept]:
        """All emoji; variants of skin tone are none of their own."""
        groups = packages.json(self.names, "meta/groups.json")["groups"]
        return [
            Concept(
                name=emoji["label"],
                code=_code(emoji["hexcode"]),
                tags=", ".join(emoji.get("tags", ())),
                group=groups.get(str(emoji.get("group")), ""),
            )
            for emoji in packages.json(self.names, "en/data.json")
        ]

    def drawings(
        self, style: EmojiStyle, concepts: Sequence[Concept], packages: PackageFolder
    ) -> dict[str, Drawing]:
        """What the style has drawn, by the name of the concept."""
        if style.folder:
            return _image_files(style.package, style.folder, concepts, packages)
        icons = packages.json(style.package, "icons.json")
        names = _icon_names(packages.json(self._naming(style), "chars.json"), concepts)
        icon_of = {
            concept: next((name for name in of_concept if name in icons["icons"]), None)
            for concept, of_concept in names.items()
        }
        return {
            concept: Drawing(svg_of(icons, icon).encode(), "svg")
            for concept, icon in icon_of.items()
            if icon
        }

    def _naming(self, style: EmojiStyle) -> NpmPackage:
        """The package whose chars.json applies to the style."""
        named_by = style.named_by or style.name
        return next(other.package for other in self.styles if other.name == named_by)


def read_styles() -> EmojiStyles:
    """The table of styles, from emoji_styles.yaml beside this file."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return EmojiStyles.model_validate(yaml.safe_load(text))


def svg_of(icons: Mapping[str, Any], name: str) -> str:
    """An icon of an Iconify set as a square SVG; a drawing that is not square is centred in it.

    The format is https://iconify.design/docs/types/iconify-json.html.
    """
    icon = {"left": 0, "top": 0, "width": 16, "height": 16, **icons, **icons["icons"][name]}
    box = " ".join(str(icon[key]) for key in ("left", "top", "width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{EDGE}" height="{EDGE}" viewBox="{box}">{icon["body"]}</svg>'
    )


def as_raster(drawing: Drawing) -> Drawing:
    """An SVG as a PNG with transparency, [EDGE, EDGE]; other files as they are. Fonts of the
    machine are not used."""
    if drawing.suffix != "svg":
        return drawing
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=drawing.content.decode(), skip_system_fonts=True)
    return Drawing(png, "png")


def _image_files(
    package: NpmPackage, folder: str, concepts: Sequence[Concept], packages: PackageFolder
) -> dict[str, Drawing]:
    files = dict[str, Drawing]()
    for name, content in packages.members(package, folder):
        path = PurePosixPath(name)
        files[_code(path.stem)] = Drawing(content, path.suffix.removeprefix("."))
    return {concept.name: files[concept.code] for concept in concepts if concept.code in files}


def _icon_names(chars: Mapping[str, str], concepts: Sequence[Concept]) -> dict[str, list[str]]:
    """The names that an icon of a concept may have, by the name of the concept: the one that
    chars.json has for its code points, then those that follow from its name. A set's aliases do
    not count, because some name other things, nor does a name that chars.json has twice: scroll,
    in OpenMoji, is both the emoji and a mouse wheel."""
    by_code = {_code(code): name for code, name in chars.items()}
    uses = Counter(by_code.values())
    slugs = Counter(concept.slug for concept in concepts)

    def names(concept: Concept) -> Iterator[str]:
        if concept.code in by_code:
            yield by_code[concept.code]
        if slugs[concept.slug] == 1:  # "keycap: #" and "keycap: *" have the same
            yield from concept.icons

    return {
        concept.name: [name for name in names(concept) if uses[name] <= 1] for concept in concepts
    }


def _code(hexcode: str) -> str:
    return hexcode.lower().replace("-fe0f", "")


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")
