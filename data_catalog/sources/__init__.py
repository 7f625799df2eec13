"""The catalog of known data sets: one YAML file for each, with where to get its URL table, its
columns, its licence and what to expect of it.

The tables themselves are not included: users download a table after they have read its licence.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Part):
    """The names of the table's columns."""

    url: str
    caption: str
    split: str | None = None


class Source(_Part):
    """One data set."""

    name: str
    summary: str
    urls: str
    """The path at which its table is expected: the value of download.urls."""
    columns: Columns
    rows: int
    licence: str
    homepage: str
    citation: str
    table: str
    """File format and size of the table."""
    get: str = ""
    """Shell commands that download it to that path."""
    success: float = Field(gt=0, le=1)
    """Expected share of the URLs that still give an image."""
    expect: str
    """The basis of that expectation, and other things to know."""

    @property
    def settings(self) -> dict[str, str | float | None]:
        """The settings that `download.source` fills in if the user does not set them."""
        return {
            "urls": self.urls,
            "url_column": self.columns.url,
            "caption_column": self.columns.caption,
            "split_column": self.columns.split,
            # A run that gets far less than expected has another problem than dead links.
            "min_success_rate": round(0.75 * self.success, 2),
        }

    @property
    def how_to_get(self) -> str:
        """Instructions for a user who does not have the table yet."""
        commands = "".join(f"\n  {line}" for line in self.get.strip().splitlines())
        return (
            f"{self.name} comes from {self.homepage} ({self.table}); "
            f"download it to {self.urls}, for example with{commands}"
        )


@cache
def known_sources() -> dict[str, Source]:
    """All data sets of the catalog, by name."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    sources = [
        Source.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files
    ]
    return {source.name: source for source in sources}


def source_at(urls: str) -> Source | None:
    """The data set whose table is expected at this path, or None."""
    return next((source for source in known_sources().values() if source.urls == urls), None)
