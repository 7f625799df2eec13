"""Pages, single rows and images of the browser."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.storage.receipts import evict
from pipeline.browse.browser import PAGE_ROWS, DataBrowser
from pipeline.browse.queries import RowQuery
from pipeline.browse.rows import BrowsedRows
from pipeline.config.run import RunConfig
from tests.support.browsed import ROWS, browsed_config, download_browsed, open_browser


def test_the_summary_counts_every_row_once(browser: DataBrowser) -> None:
    summary = browser.summary()
    assert summary["rows"] == len(ROWS)
    assert summary["kept"] + sum(reason["rows"] for reason in summary["reasons"]) == len(ROWS)
    assert summary["sources"] == [{"source": "a", "rows": 12}, {"source": "b", "rows": 5}]
    assert summary["duplicates"] == {"same_file": 1, "looks_the_same": 1}
    assert summary["scored"] == summary["kept"] == 11
    assert not summary["reading"]
    assert not summary["notes"]


def test_a_row_has_all_its_columns(config: RunConfig, browser: DataBrowser) -> None:
    row = browser.row(0)
    assert row
    content = (Path(config.download.place) / "a/0.jpg").read_bytes()
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert (row["width"], row["height"]) == (150, 100)
    assert (row["stored_width"], row["stored_height"]) == (64, 64)
    assert row["url"] == "file:a/0.jpg"
    assert row["captions"] == [
        {"column": "caption", "caption": "a red boat"},
        {"column": "other", "caption": "un bateau rouge"},
    ]
    assert (row["split"], row["reason"], row["row"]) == ("train", "", 0)
    image = browser.image(0)
    assert image
    assert image.suffix == "png"
    with Image.open(io.BytesIO(image.content)) as opened:
        assert opened.size == (64, 64)


def test_rows_without_an_image_and_numbers_without_a_row(browser: DataBrowser) -> None:
    rejected = len(ROWS) - 1
    row = browser.row(rejected)
    assert row
    assert row["reason"] == "table: empty caption"
    assert not row["has_image"]
    for number in (rejected, len(ROWS), -1, 1 << 60):
        assert browser.image(number) is None
    assert browser.row(len(ROWS)) is None
    assert browser.row(-1) is None


def test_pages_hold_all_rows_once(browser: DataBrowser) -> None:
    many = DataBrowser(browser.run)
    copies = [browser.rows.table] * 9
    many.rows = BrowsedRows(browser.rows.table.slice(0, 0), 0.1).followed_by(*copies)
    pages = [many.page(RowQuery(), page) for page in range(4)]
    assert {page["found"] for page in pages} == {9 * len(ROWS)}
    assert pages[0]["pages"] == 3
    assert [len(page["rows"]) for page in pages] == [PAGE_ROWS, PAGE_ROWS, 33, 0]
    numbers = [row["number"] for page in pages for row in page["rows"]]
    assert numbers == np.arange(9 * len(ROWS)).tolist()


def test_pairs_by_kind(browser: DataBrowser) -> None:
    assert [pair["bits"] is None for pair in browser.pairs("", 0)["pairs"]] == [False, True]
    same_file = browser.pairs("same_file", 0)
    assert same_file["found"] == 1
    assert same_file["pairs"][0]["repeated"]["caption"] == "a red boat"
    assert browser.pairs("looks_the_same", 0)["pairs"][0]["dropped"]["caption"] == "a smaller house"
    assert browser.pairs("", 1)["pairs"] == []


def test_captions_of_evicted_images_show(tmp_path: Path) -> None:
    config = browsed_config(tmp_path)
    folder = download_browsed(config).folder
    evict(folder, "00000.tar")
    browser = open_browser(config)
    tiles = browser.page(RowQuery(), 0)["rows"]
    assert tiles[0]["caption"] == "a red boat"
    assert [tile["has_image"] for tile in tiles[:7]] == [False] * 6 + [True]
    assert browser.image(0) is None
    assert "deleted after the encoding" in browser.summary()["notes"][1]


def test_rejected_rows_join_without_changing_numbers(
    config: RunConfig, browser: DataBrowser
) -> None:
    early = DataBrowser(browser.run)
    assert early.summary()["reading"]
    assert early.summary()["rows"] == len(ROWS) - 1
    before = early.page(RowQuery(), 0)["rows"]
    early.read_input()
    assert early.page(RowQuery(), 0)["rows"] == [*before, early.page(RowQuery(), 0)["rows"][-1]]
    Path(config.download.place).rename(Path(config.download.place).with_name("moved"))
    try:
        lost = DataBrowser(browser.run)
        lost.read_input()
        assert not lost.is_reading
        assert "missing here" in lost.summary()["notes"][0]
    finally:
        Path(config.download.place).with_name("moved").rename(config.download.place)
