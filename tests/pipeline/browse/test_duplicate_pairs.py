"""Each dropped duplicate stands beside the image that it repeats."""

from __future__ import annotations

from pipeline.browse.browser import DataBrowser
from pipeline.browse.duplicate_pairs import DUPLICATE_REASONS, pair_duplicates
from pipeline.browse.rows import BrowsedRows


def test_pairs_are_those_that_the_download_dropped(browser: DataBrowser) -> None:
    rows, run = browser.rows, browser.run
    pairs = pair_duplicates(rows, run.images.folder, run.config.download)
    captions = rows.table["caption"].to_pylist()
    assert [
        (captions[dropped], captions[repeated])
        for dropped, repeated in zip(pairs.dropped, pairs.repeated, strict=True)
    ] == [("a smaller house", "a Blue house"), ("a copy of the boat", "a red boat")]
    assert 0 <= pairs.bits[0] <= 3
    assert pairs.same_file.tolist() == [False, True]
    reasons = rows.table["reason"].to_pylist()
    assert [reasons[number] for number in pairs.dropped] == [*DUPLICATE_REASONS[::-1]]


def test_without_dropped_rows_no_hash_is_read(browser: DataBrowser) -> None:
    rows = BrowsedRows(browser.rows.table.slice(0, 3), 0.1)
    pairs = pair_duplicates(rows, browser.run.images.folder / "gone", browser.run.config.download)
    assert pairs.dropped.tolist() == []
