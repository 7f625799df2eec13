"""The catalog of known data sets: one YAML file for each, with where to get its URL table or its
images, its columns, its licence and what to expect of it.

The data itself is not included: users get it after they have read its licence.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Part):
    """The names of the columns."""

    url: str | None = None
    """Of a table of URLs."""
    caption: str
    split: str | None = None


class Source(_Part):
    """One data set."""

    name: str
    summary: str
    urls: str | None = None
    """The path at which its table is expected: the value of download.urls."""
    images: str | None = None
    """The path at which its images are expected, if it is no table: the value of
    download.images."""
    columns: Columns
    rows: int
    licence: str
    homepage: str
    citation: str
    files: str
    """File format and size of what is at that path."""
    get: str = ""
    """Shell commands that download it to that path."""
    success: float = Field(gt=0, le=1)
    """Expected share of the rows that give an image."""
    expect: str
    """The basis of that expectation, and other things to know."""
    run: str = ""
    """Config and settings to run it with, if it takes more than its name."""

    @model_validator(mode="after")
    def _is_table_or_images(self) -> Source:
        if bool(self.urls) == bool(self.images) or bool(self.urls) != bool(self.columns.url):
            raise ValueError("an entry has urls and columns.url, or images and neither of them")
        return self

    @property
    def place(self) -> str:
        """The value of download.images or download.urls."""
        return self.images or self.urls or ""

    @property
    def settings(self) -> dict[str, str | float | None]:
        """The settings that `download.source` fills in if the user does not set them."""
        images = {"images": self.images}
        table = {"urls": self.urls, "url_column": self.columns.url}
        return {
            **(images if self.images else table),
            "caption_column": self.columns.caption,
            "split_column": self.columns.split,
            # A run that gets far less than expected has another problem than dead links.
            "min_success_rate": round(0.75 * self.success, 2),
        }

    @property
    def how_to_get(self) -> str:
        """Instructions for a user who does not have it yet."""
        commands = "".join(f"\n  {line}" for line in self.get.strip().splitlines())
        return (
            f"{self.name} comes from {self.homepage} ({self.files}); "
            f"get it to {self.place}, for example with{commands}"
        )


@cache
def known_sources() -> dict[str, Source]:
    """All data sets of the catalog, by name."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    sources = [
        Source.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files
    ]
    return {source.name: source for source in sources}


def source_at(place: str) -> Source | None:
    """The data set whose table or images are expected at this path, or None."""
    return next((source for source in known_sources().values() if source.place == place), None)
