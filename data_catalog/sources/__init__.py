"""Known data sets: where the URL table is, its columns, its licence, what to expect. One YAML file each."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict


class Source(BaseModel):
    """One data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    urls: str
    """What download.urls is set to."""
    columns: list[str]
    rows: int
    licence: str
    expect: str


def known_sources() -> dict[str, Source]:
    """All data sets of the catalog, by name."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    sources = [Source.model_validate(yaml.safe_load(file.read_text())) for file in files]
    return {source.name: source for source in sources}
