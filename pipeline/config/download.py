"""Settings of the download: which URL table, how images are fetched, checked and resized."""

from __future__ import annotations

import difflib
import ipaddress
from collections import Counter
from typing import Any, Literal

from pydantic import (
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from data_catalog.deduplication import MOST_BITS
from data_catalog.redaction import redacted
from data_catalog.sources import known_sources, source_at
from data_catalog.url_table.table import RowRules, TableColumns
from pipeline.config.paths import TextPath, escape
from pipeline.config.section import Section


class DownloadConfig(Section):
    """urls -> images"""

    source: str | None = None
    """A data set of `tld catalog list`: sets urls, columns and min_success_rate where you set
    nothing else."""
    urls: TextPath
    """Table of URLs and captions: a file (csv, tsv, parquet, json lines, also packed), a folder of
    such files or an fsspec URL like s3://…; or 'shapes' for the built-in data set. Of a URL's user,
    password and query, records show '***'."""
    url_column: str = "url"
    """Column of the URLs."""
    caption_column: str = "caption"
    """Column of the captions."""
    more_caption_columns: tuple[str, ...] = Field((), max_length=255)
    """Columns with further captions of the same picture, which training draws from
    (train.caption_weights). An empty one, or one of a length that is not wanted, is absent; its row
    is kept. Of a column of lists, `caption[1]` is the second element."""
    split_column: str | None = None
    """Column that says 'train' or 'held_out'; without it a hash of the key decides
    (train.held_out_fraction)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first rows of the table."""
    min_caption_chars: int = Field(1, ge=1)
    """Rows with a shorter caption are left out."""
    max_caption_chars: int = Field(1000, ge=1, le=16_384)
    """Rows with a longer caption are left out; one of more than 16 KB always is."""
    image_size: int = Field(256, ge=16, le=2048)
    """Edge of the square pictures, pixels: the short side is resized to it, the center cropped."""
    image_format: Literal["jpg", "png", "webp"] = "jpg"
    """How pictures are stored in the shards."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """Of stored jpg pictures, and of webp."""
    min_image_size: int | None = Field(None, ge=1)
    """Pictures with a shorter side are dropped; without it image_size, so that nothing is
    enlarged."""
    max_aspect_ratio: float = Field(4.0, ge=1)
    """Pictures with a long side of more than this many short ones are dropped."""
    max_pixels_m: float = Field(64, gt=0, le=178)
    """Pictures of more megapixels are not decoded."""
    drop_duplicates: bool = True
    """Keep only the first of several URLs that brought the same file."""
    near_duplicate_bits: int | None = Field(3, ge=0, le=MOST_BITS)
    """Keep only the first of pictures that look the same: whose 64-bit perceptual hashes differ in
    at most so many bits; null keeps all."""
    shard_size: int = Field(1000, ge=2, le=100_000)
    """Rows of the table in one shard: the unit of work, retry and progress."""
    shard_deadline_s: float = Field(3600, gt=0)
    """A shard that takes longer is begun again by another process, at most twice. Changes speed
    only."""
    min_success_rate: float = Field(0.5, ge=0, le=1)
    """Fewer pictures than this share of the usable rows is an error."""
    timeout_s: float = Field(10, gt=0)
    """How long a server may stay silent, seconds."""
    url_deadline_s: float = Field(30, gt=0)
    """How long a URL may take in all: connections, redirects, body, second tries and the waits
    between them."""
    retries: int = Field(1, ge=0, le=10)
    """Second tries of a URL that failed for a cause that may pass: time-out, broken connection,
    HTTP 5xx or 429."""
    allowed_networks: tuple[str, ...] = ()
    """Networks in CIDR notation to fetch from although their addresses are not public, as
    ['10.20.0.0/16']."""
    max_body_mb: float = Field(32, gt=0, le=1024)
    """Larger files are not fetched."""
    respect_opt_out: bool = True
    """Drop files whose HTTP headers forbid training on them (X-Robots-Tag, TDM-Reservation)."""
    requests_per_host: int = Field(8, ge=1)
    """Connections to one host at a time, of all workers together. Changes speed only."""
    host_requests_per_s: float | None = Field(20, gt=0)
    """Requests a second to one host, of all workers together; null is no bound. Changes speed
    only."""
    workers: int = Field(2, ge=1, le=4096)
    """Processes. Changes speed only."""
    threads: int = Field(32, ge=1, le=4096)
    """Connections of each process. Changes speed only."""

    @field_serializer("urls", when_used="json")
    def _urls_as_recorded(self, urls: str) -> str:
        """What is recorded shows no secret; the run itself works with the whole URL."""
        return escape(redacted(urls))

    @field_validator("allowed_networks")
    @classmethod
    def _networks_exist(cls, allowed_networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in allowed_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(
                    f"{error}; a network looks like 10.20.0.0/16 or fd12:3456::/32"
                ) from None
        return allowed_networks

    @model_validator(mode="after")
    def _caption_columns_differ(self) -> DownloadConfig:
        if twice := [name for name, count in Counter(self.caption_columns).items() if count > 1]:
            raise ValueError(
                f"caption_column and more_caption_columns name a column twice: {', '.join(twice)}"
            )
        return self

    @property
    def known_source(self) -> str | None:
        """The data set of the catalog that this is, named or by where its table lies."""
        there = source_at(self.urls)
        return self.source or (there.name if there else None)

    @property
    def columns(self) -> TableColumns:
        return TableColumns(
            self.url_column, self.caption_column, self.split_column, self.more_caption_columns
        )

    @property
    def caption_columns(self) -> tuple[str, ...]:
        """All of them, the main one first."""
        return (self.caption_column, *self.more_caption_columns)

    @property
    def rules(self) -> RowRules:
        return RowRules(self.min_caption_chars, self.max_caption_chars)

    @model_validator(mode="before")
    @classmethod
    def _take_from_source(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(name := given.get("source"), str):
            return given
        known = known_sources().get(name)
        return (
            known.settings if known else {"urls": name}
        ) | given  # an unknown one is the field's own problem

    @field_validator("source")
    @classmethod
    def _source_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in known_sources():
            close = difflib.get_close_matches(name, known_sources(), n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known_sources())}"
            )
            raise ValueError(f"no such data set in the catalog; {hint}")
        return name

    @model_validator(mode="after")
    def _captions_have_a_length(self) -> DownloadConfig:
        if self.min_caption_chars > self.max_caption_chars:
            raise ValueError(
                f"min_caption_chars {self.min_caption_chars} is more than max_caption_chars "
                f"{self.max_caption_chars}"
            )
        return self
