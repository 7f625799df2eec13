"""Known data sets: what they are, where their URL tables come from, and what to expect. One YAML
file each.

Knows no table itself: a table is fetched by the user, who has read the licence.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Part):
    """Which columns of the table hold what."""

    url: str
    caption: str
    split: str | None = None


class Source(_Part):
    """One data set."""

    name: str
    summary: str
    urls: str
    """Where its table is looked for: what download.urls is set to."""
    columns: Columns
    rows: int
    licence: str
    homepage: str
    citation: str
    table: str
    """Form and origin of the table."""
    get: str = ""
    """Shell commands that put it in place."""
    success: float = Field(gt=0, le=1)
    """Share of the URLs that should still give a picture: an expectation, not a promise."""
    expect: str
    """What the expectation rests on, and what else to know."""

    @property
    def settings(self) -> dict[str, str | float | None]:
        """What `download.source` sets where the user sets nothing."""
        return {
            "urls": self.urls,
            "url_column": self.columns.url,
            "caption_column": self.columns.caption,
            "split_column": self.columns.split,
            # A run that gets far less than was to be expected has another problem than decay.
            "min_success_rate": round(0.75 * self.success, 2),
        }

    @property
    def how_to_get(self) -> str:
        """For a user who does not have the table yet."""
        commands = "".join(f"\n  {line}" for line in self.get.strip().splitlines())
        return f"{self.name} comes from {self.homepage} ({self.table}); put it there, for example with{commands}"


@cache
def known_sources() -> dict[str, Source]:
    """All data sets of the catalog, by name."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    sources = [
        Source.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files
    ]
    return {source.name: source for source in sources}


def source_at(urls: str) -> Source | None:
    """The data set whose table is looked for at a path."""
    return next((source for source in known_sources().values() if source.urls == urls), None)
