"""The built-in data set as a URL table."""

from __future__ import annotations

import pytest

from data_catalog.shapes.columns import COLUMNS, column
from data_catalog.url_table.built_in import built_in_digest, built_in_rows
from data_catalog.url_table.files import UrlTableError
from data_catalog.url_table.rows import TableColumns

MIXED = TableColumns(caption="mixed", more_captions=("short_1", "caption"), keep=("short_2",))


def test_settings_choose_columns_and_the_split_is_always_there() -> None:
    table = {name: column(name) for name in COLUMNS}
    rows = built_in_rows(MIXED).rows.to_pydict()
    assert rows["caption"] == table["mixed"]
    assert rows["more_caption_1"] == table["short_1"]
    assert rows["more_caption_2"] == table["caption"]
    assert rows["keep_1"] == table["short_2"]
    assert rows["split"] == table["split"]
    assert rows["row"] == list(range(6000))


def test_the_digest_is_that_of_the_chosen_columns_alone() -> None:
    assert built_in_digest(TableColumns()) == (
        "0211ba0e1de0da9e4af9943336d0ba140260a78596fbcb25329e86ff79a8ecba"
    ), "outputs of the versions that had no further columns stay fresh"
    digests = {built_in_digest(columns) for columns in (TableColumns(), MIXED)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    "columns",
    [
        TableColumns(caption="alt"),
        TableColumns(url="link"),
        TableColumns(more_captions=("short_1", "short_1[1]")),
        TableColumns(keep=("size",)),
    ],
)
def test_what_is_no_column_is_told_with_those_there_are(columns: TableColumns) -> None:
    with pytest.raises(
        UrlTableError, match=r"has no column '\S+'; its columns are 'url', 'caption', 'split', "
    ):
        built_in_rows(columns)
