"""The rows that stage 1 works on, from a table of URLs or from images that exist already, with
captions of their own or from a table of captions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from data_catalog.image_sources.sample_columns import FILE_NAME, KEY
from data_catalog.image_sources.source import (
    NAMED_BY_FILES,
    ImagesAt,
    ImageSource,
    open_images,
)
from data_catalog.url_table.captions import CaptionTable, captions_digest, load_captions
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.numbered_rows import first_batches, renumbered
from data_catalog.url_table.rows import TableColumns, keep_roles
from data_catalog.url_table.table import (
    RowRules,
    UrlTable,
    open_url_table,
    url_table_digest,
)

_FIRST_ROWS = 1000  # among which a caption, or a key of the table of captions, is expected


@dataclass(frozen=True, slots=True)
class InputRows:
    """Where rows come from and which of them can be used."""

    urls: str | None
    """The table of URLs; None if `images` is given."""
    images: ImagesAt | None
    captions: str | None
    """A table of captions by key, or None."""
    key_column: str
    """The column of keys in the table of captions, and in the rows."""
    columns: TableColumns
    limit: int | None
    rules: RowRules

    @property
    def source(self) -> str:
        """The table or the images, as a user gives them."""
        return self.urls if self.images is None else self.images.source  # type: ignore[return-value]

    @property
    def own_columns(self) -> TableColumns:
        """The columns to read of the rows themselves: with a table of captions, the key in place
        of the caption."""
        if self.captions is None:
            return self.columns
        return replace(self.columns, caption=self.key_column, more_captions=())


def open_rows(rows: InputRows) -> UrlTable:
    """Find the rows and check their first ones. Raises UrlTableError if there are none, a column is
    missing, no caption is found, or no key matches."""
    table = _without_captions(rows)
    if rows.captions is None:
        return table
    theirs = replace(rows.columns, url=rows.key_column, split=None, keep=())
    captions = load_captions(rows.captions, theirs)
    _require_match(table, captions)
    rules = replace(table.rules, captions_by_key=True)
    return replace(table, columns=rows.columns, rules=rules, captions=captions)


def _without_captions(rows: InputRows) -> UrlTable:
    """The rows as they are, with keys for captions where a table of captions is given."""
    columns = rows.own_columns
    if rows.images is None:
        return open_url_table(rows.source, columns, rows.limit, rows.rules)
    images = open_images(rows.images)
    if rows.captions and columns.caption == FILE_NAME and isinstance(images, NAMED_BY_FILES):
        columns = replace(columns, caption=KEY)  # the name itself, not its words
    images.check(columns)
    table = UrlTable(
        rows.source,
        columns,
        replace(rows.rules, from_web=False),
        lambda: renumbered(images.batches(columns), rows.limit),
        lambda: min(images.rows_about(), rows.limit or 2**63),
        version_of=images.digest,
    )
    if rows.captions is None:
        _require_captions(table, images)
    if columns.keep and isinstance(images, NAMED_BY_FILES):  # others name their columns
        _require_kept_columns(table, images)
    return table


def digests_of(rows: InputRows) -> dict[str, str]:
    """The digests of what the rows depend on, by the names that manifests give them."""
    if rows.images is None:
        digests = {"urls_digest": url_table_digest(rows.source, rows.columns)}
    else:
        digests = {"images_digest": open_images(rows.images).digest()}
    if rows.captions is not None:
        digests["captions_digest"] = captions_digest(rows.captions)
    return digests


def _require_captions(table: UrlTable, images: ImageSource) -> None:
    """Raise UrlTableError if none of the first rows has a caption."""
    first = _first_rows(table)
    if any(caption for caption in first["caption"].to_pylist()):
        return
    setting = "download.caption_column"
    raise UrlTableError(
        f"none of the first {first.num_rows} images of {table.source} has a caption in "
        f"{table.columns.caption!r}; columns with texts: {', '.join(images.columns())}; set "
        f"{setting} to one of them, for example {setting}=file_name for the words of the file "
        "names, or give a table of captions in download.captions"
    )


def _require_kept_columns(table: UrlTable, images: ImageSource) -> None:
    """Raise UrlTableError if a column to keep has no text in any of the first rows."""
    first, keep = _first_rows(table), table.columns.keep
    roles = zip(keep, keep_roles(len(keep)), strict=True)
    if missing := [name for name, role in roles if first[role].null_count == first.num_rows]:
        raise UrlTableError(
            f"none of the first {first.num_rows} images of {table.source} has a text in "
            f"{', '.join(map(repr, missing))}; columns with texts: {', '.join(images.columns())}; "
            "set download.keep_columns"
        )


def _require_match(table: UrlTable, captions: CaptionTable) -> None:
    """Raise UrlTableError if no key of the first rows is in the table of captions."""
    first = _first_rows(table)
    for batch in first.to_batches():
        if captions.join(batch)["caption"].null_count < batch.num_rows:
            return
    keys = ", ".join(map(repr, first["caption"].slice(0, 3).to_pylist()))
    raise UrlTableError(
        f"none of the first {first.num_rows} keys of {table.source}, such as {keys}, is in the "
        f"table of captions {captions.source}, whose keys are such as {captions.some_keys()}; set "
        "download.key_column to a column that both have"
    )


def _first_rows(table: UrlTable) -> pa.Table:
    """About the first thousand rows, or all if there are fewer."""
    batches = first_batches(table.batches(), _FIRST_ROWS)
    if not any(batch.rows.num_rows for batch in batches):
        bad = next((bad for batch in batches for bad in batch.bad), None)
        why = f"{bad.reason}: {bad.text}" if bad else "it is empty"
        raise UrlTableError(f"{table.source} has no row that can be read; {why}")
    return pa.Table.from_batches([batch.rows for batch in batches])
