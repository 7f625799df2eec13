"""Row counts by outcome, which add up to the rows of the table."""

from __future__ import annotations

import pytest

from data_catalog.row_counts import Account, account_rows

IMAGES = Account(
    rows=10,
    rejected={"no caption": 1},
    failed={"HTTP 404": 2, "timeout": 1},
    downloaded=6,
    dropped={"duplicate": 2},
)
ENCODINGS = IMAGES.model_copy(
    update={"dropped": {"duplicate": 2, "clip score below 20": 1}, "encoded": 3}
)


@pytest.mark.parametrize(
    ("account", "last"),
    [
        (IMAGES, ("kept", "images with captions", 4)),
        (ENCODINGS, ("encoded", "pairs encoded", 3)),
    ],
)
def test_every_row_is_counted_once(account: Account, last: tuple[str, str, int]) -> None:
    total, *parts = account_rows(account)
    assert total == ("input", "rows of the input", 10)
    assert sum(count for _, _, count in parts) == 10
    assert parts[:3] == [
        ("rejected", "no caption", 1),
        ("failed", "HTTP 404", 2),
        ("failed", "timeout", 1),
    ]
    assert parts[-1] == last


def test_encoded_pairs_are_stored_once_there_are_any() -> None:
    assert "encoded" not in IMAGES.model_dump(mode="json")
    assert ENCODINGS.model_dump(mode="json")["encoded"] == 3
