"""Filters and order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.browse.browser import DataBrowser
from pipeline.browse.queries import RowQuery, matching_rows
from tests.support.browsed import CLOSING, PAIRS, ROWS, RTL, SCRIPT


def captions(browser: DataBrowser, **query: object) -> list[str]:
    numbers = matching_rows(browser.rows, RowQuery.model_validate(query))
    table = browser.rows.table["caption"]
    return [table[int(number)].as_py() for number in numbers]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blue HOUSE", ["a Blue house"]),
        ("BATEAU", ["a red boat"]),  # of the other caption column
        ("other caption 7", ["picture number 7"]),
        ("<script>", [SCRIPT]),
        ("</script>", [SCRIPT, CLOSING]),
        ("'quotes'", [CLOSING]),
        ("\u0634\u0645\u0633", [RTL]),
        (".*", []),
        ("null", []),
    ],
)
def test_text_is_searched_in_all_captions(
    browser: DataBrowser, text: str, expected: list[str]
) -> None:
    assert captions(browser, text=text) == expected


def test_states_and_reasons(browser: DataBrowser) -> None:
    everything = captions(browser)
    assert sorted(everything) == sorted(row[1] for row in ROWS)
    kept, left_out = (captions(browser, state=state) for state in ("kept", "left_out"))
    assert len(kept) == PAIRS - 3
    assert sorted(kept + left_out) == sorted(everything)
    assert captions(browser, reason="download: not an image") == ["no picture at all"]
    assert captions(browser, reason="download: not an") == []


def test_sizes_hold_both_bounds_and_no_unknown_size(browser: DataBrowser) -> None:
    assert captions(browser, side_from=101, side_to=102) == ["a Blue house", SCRIPT]
    assert captions(browser, side_to=91) == ["a smaller house"]
    assert captions(browser, side_from=111) == ["picture number 11"]


def test_scores_and_order(browser: DataBrowser) -> None:
    rows = browser.rows
    known = rows.clip_score[~np.isnan(rows.clip_score)]
    middle = float(np.median(known))
    numbers = matching_rows(rows, RowQuery(score_from=middle, sort="score"))
    assert rows.clip_score[numbers].tolist() == sorted(known[known >= middle].tolist())
    falling = matching_rows(rows, RowQuery(sort="score", descending=True))
    assert rows.clip_score[falling][: len(known)].tolist() == sorted(known.tolist(), reverse=True)
    assert np.isnan(rows.clip_score[falling][len(known) :]).all(), "rows without a score come last"
    sides = rows.short_side[matching_rows(rows, RowQuery(sort="size"))]
    assert sides[sides > 0].tolist() == sorted(sides[sides > 0].tolist())
    assert not sides[np.count_nonzero(sides) :].any()


def test_keys_in_both_directions(browser: DataBrowser) -> None:
    assert captions(browser, descending=True) == captions(browser)[::-1]


def test_a_source_is_a_whole_name_or_a_part_of_one(browser: DataBrowser) -> None:
    assert len(captions(browser, source="b")) == 5
    assert captions(browser, source="B") == captions(browser, source="b")
    assert captions(browser, source="elsewhere") == []


def test_splits(browser: DataBrowser) -> None:
    assert captions(browser, split="held_out") == ["a Blue house"]
    assert len(captions(browser, split="train")) == PAIRS - 4


@pytest.mark.parametrize(
    "query",
    [
        {"score_from": float("nan")},
        {"side_from": -1},
        {"sort": "caption"},
        {"text": "x" * 501},
        {"unknown": 1},
    ],
)
def test_absurd_queries_are_refused(query: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        RowQuery.model_validate(query)
