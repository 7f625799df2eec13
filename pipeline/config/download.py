"""Download settings: where images are, and how they are fetched, filtered, resized and stored."""

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
from data_catalog.encodings import COLUMN_TYPES
from data_catalog.image_sources.source import ImagesAt
from data_catalog.input_rows import InputRows
from data_catalog.redaction import redacted
from data_catalog.sources import known_sources, source_at
from data_catalog.url_table.table import RowRules, TableColumns
from pipeline.config.paths import TextPath, escape
from pipeline.config.section import NotInFingerprint, Section, SpeedOnly


class DownloadConfig(Section):
    """urls or images -> square images with captions"""

    source: NotInFingerprint[str | None] = None  # the settings that it supplies count
    """Name of a data set from `tld catalog list`. It supplies defaults for urls or images, the
    columns and min_success_rate; settings that you give yourself take precedence."""
    urls: NotInFingerprint[TextPath | None] = None  # the digest of the table counts
    """Table of image URLs and captions: a file (csv, tsv, parquet or JSON lines, optionally
    compressed), a folder of such files, an fsspec URL like s3://…, or 'shapes' for the built-in
    data set. Records show '***' in place of a URL's user, password and query."""
    images: NotInFingerprint[TextPath | None] = None  # the digest of its files counts
    """Images that exist already, in place of urls: a folder of images, webdataset tars, Parquet
    files with image bytes, or a Hugging Face data set. A folder, a file, a pattern like
    'data/*.tar' or 'data/{00000..00099}.tar', an fsspec URL like s3://… or hf://…, or
    hf://datasets/OWNER/NAME for a data set of the hub."""
    image_column: str = "image"
    """Column of the image bytes in Parquet files and data sets. In tars, the suffix of the image
    where a sample has several."""
    dataset_config: str | None = None
    """Configuration of a Hugging Face data set that has several; its page calls them subsets."""
    dataset_split: str = "train"
    """Split of a Hugging Face data set; several are joined with a plus sign."""
    url_column: str = "url"
    """Column that holds the image URLs."""
    caption_column: str = "caption"
    """Column that holds the captions. Of a folder or tar, 'caption' is NAME.txt beside NAME.jpg, or
    the field of NAME.json or of metadata.csv; 'file_name' and 'folder_name' take the words of the
    names."""
    captions: NotInFingerprint[TextPath | None] = None  # the digest of the table counts
    """Table of captions by key, in any format of urls. Its captions, in caption_column and
    more_caption_columns, replace those beside the images."""
    key_column: str = "key"
    """Column of the keys in the table of captions, and beside the images in Parquet files, data
    sets and URL tables. In a folder or tar, the key of an image is its path without the suffix."""
    more_caption_columns: tuple[str, ...] = Field((), max_length=255)
    """Columns with alternative captions of the same image, among which training chooses
    (train.caption_weights). A caption that is empty, too short or too long is ignored; its row is
    kept. For a column of lists, `caption[1]` names the second element."""
    keep_columns: tuple[str, ...] = Field((), max_length=255)
    """Columns to carry as text into the encoded shards, such as the style or the source of an
    image. Numbers, true and false become text, and of a list its first element; a missing value,
    NaN, infinity and a text over 16 KB become null. Adding a column fetches all images again."""
    split_column: str | None = None
    """Column that assigns each row to 'train' or 'held_out'. Without it, and for rows in which it
    is empty, a hash of the key decides (train.held_out_fraction)."""
    limit: int | None = Field(None, ge=1)
    """Use only this many rows from the start of the input; null uses all."""
    min_caption_chars: int = Field(1, ge=1)
    """Skip rows whose caption is shorter, in characters."""
    max_caption_chars: int = Field(1000, ge=1, le=16_384)
    """Skip rows whose caption is longer, in characters. Captions over 16 KB are always skipped."""
    image_size: int = Field(256, ge=16, le=2048)
    """Edge of the square training images, in pixels: the short side is resized to it, then the
    center is cropped."""
    image_format: Literal["jpg", "png", "webp"] = "jpg"
    """File format of the images in the shards."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """Compression quality of stored jpg and webp images."""
    min_image_size: int | None = Field(None, ge=1)
    """Drop images whose short side has fewer pixels. null means image_size, so that no image is
    enlarged."""
    max_aspect_ratio: float = Field(4.0, ge=1)
    """Drop images whose long side is more than this many times the short side."""
    max_pixels_m: float = Field(64, gt=0, le=178)
    """Drop images of more megapixels, without decoding them."""
    drop_duplicates: bool = True
    """Keep only the first of several images whose files are equal."""
    near_duplicate_bits: int | None = Field(3, ge=0, le=MOST_BITS)
    """Keep only the first of several images that look the same: their 64-bit perceptual hashes
    differ in at most this many bits. null keeps them all."""
    shard_size: int = Field(1000, ge=2, le=100_000)
    """Rows of the input per shard. A shard is the unit of work, retry and progress."""
    shard_deadline_s: SpeedOnly[float] = Field(3600, gt=0)
    """Time limit for one shard, in seconds. When it is exceeded another process restarts the shard,
    at most twice."""
    min_success_rate: NotInFingerprint[float] = Field(0.5, ge=0, le=1)  # fails, or changes nothing
    """Fail if fewer than this share of the usable rows become images."""
    timeout_s: float = Field(10, gt=0)
    """How long a server may send nothing before the request times out, in seconds."""
    url_deadline_s: float = Field(30, gt=0)
    """Total time limit for one URL, in seconds: connections, redirects, body, retries and the
    waits between them."""
    retries: int = Field(1, ge=0, le=10)
    """Retries of a URL after a transient failure: a timeout, a broken connection, HTTP 5xx or
    429."""
    allowed_networks: tuple[str, ...] = ()
    """Private networks that images may be fetched from, in CIDR notation, for example
    ['10.20.0.0/16']. Other addresses that are not public are refused."""
    max_body_mb: float = Field(32, gt=0, le=1024)
    """Largest image file, in MB."""
    respect_opt_out: bool = True
    """Drop images whose HTTP headers opt out of training (X-Robots-Tag, TDM-Reservation)."""
    requests_per_host: SpeedOnly[int] = Field(8, ge=1)
    """Largest number of simultaneous connections to one host, over all workers."""
    host_requests_per_s: SpeedOnly[float | None] = Field(20, gt=0)
    """Rate limit for one host, in requests per second over all workers; null means no limit."""
    workers: SpeedOnly[int] = Field(2, ge=1, le=4096)
    """Number of download processes."""
    threads: SpeedOnly[int] = Field(32, ge=1, le=4096)
    """Number of connections per process."""

    @field_serializer("urls", "images", "captions", when_used="json")
    def _place_as_recorded(self, place: str | None) -> str | None:
        """Records hide credentials; the run itself uses the full URL."""
        return place and escape(redacted(place))

    @field_validator("allowed_networks")
    @classmethod
    def _networks_exist(cls, allowed_networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in allowed_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(
                    f"{error}; write a network as 10.20.0.0/16 or fd12:3456::/32"
                ) from None
        return allowed_networks

    @model_validator(mode="after")
    def _caption_columns_differ(self) -> DownloadConfig:
        if twice := [name for name, count in Counter(self.caption_columns).items() if count > 1]:
            raise ValueError(
                f"caption_column and more_caption_columns name a column twice: {', '.join(twice)}"
            )
        return self

    @field_validator("keep_columns")
    @classmethod
    def _kept_columns_have_names_of_their_own(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() for name in names):
            raise ValueError("has an empty name; name a column of the input, or remove it")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"names a column twice: {', '.join(twice)}")
        if taken := [name for name in names if name in COLUMN_TYPES]:
            raise ValueError(
                f"encoded shards have columns of their own with the names {', '.join(taken)}; "
                "rename them in the input, or remove them here"
            )
        return names

    @property
    def known_source(self) -> str | None:
        """The catalog data set that `source` names, or that is at `urls` or `images`."""
        match = source_at(self.place)
        return self.source or (match.name if match else None)

    @property
    def place(self) -> str:
        """Where the images or their URLs are: the value of `images` or `urls`."""
        return self.images or self.urls or ""

    @property
    def rows(self) -> InputRows:
        """The rows that stage 1 works on."""
        at = None
        if self.images:
            at = ImagesAt(self.images, self.image_column, self.dataset_config, self.dataset_split)
        return InputRows(
            urls=self.urls,
            images=at,
            captions=self.captions,
            key_column=self.key_column,
            columns=TableColumns(
                self.url_column,
                self.caption_column,
                self.split_column,
                self.more_caption_columns,
                self.keep_columns,
            ),
            limit=self.limit,
            rules=RowRules(self.min_caption_chars, self.max_caption_chars),
        )

    @property
    def caption_columns(self) -> tuple[str, ...]:
        """All caption columns, the main one first."""
        return (self.caption_column, *self.more_caption_columns)

    @model_validator(mode="before")
    @classmethod
    def _take_from_source(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or not isinstance(name := settings.get("source"), str):
            return settings
        known = known_sources().get(name)
        if settings.get("images") and not (known and known.images):
            raise ValueError("source names a table of URLs, but images is set; remove one")
        if settings.get("urls") and known and known.images:
            raise ValueError(f"source {name!r} has images, but urls is set; remove one")
        return (
            known.settings if known else {"urls": name}
        ) | settings  # the validator of `source` reports an unknown name

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
    def _has_one_place(self) -> DownloadConfig:
        if bool(self.urls) == bool(self.images):
            have = "neither urls nor images is" if not self.urls else "both urls and images are"
            raise ValueError(
                f"{have} set; set urls to a table of image URLs, or images to a folder, tars, "
                "Parquet files or a data set, or source to a name from `tld catalog list`"
            )
        return self

    @model_validator(mode="after")
    def _captions_have_a_length(self) -> DownloadConfig:
        if self.min_caption_chars > self.max_caption_chars:
            raise ValueError(
                f"min_caption_chars {self.min_caption_chars} is greater than max_caption_chars "
                f"{self.max_caption_chars}"
            )
        return self
