"""Rows of a URL table by what became of them, for tables and reports."""

from __future__ import annotations

from typing import Any


def account_rows(account: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Every row of the URL table, as (kind, cause, rows): the rows below the first add up to it."""
    rows = [("table", "rows of the URL table", account["rows"])]
    for kind in ("rejected", "failed", "dropped"):
        rows += [(kind, cause, count) for cause, count in account[kind].items()]
    last = (
        ("encoded", "pairs encoded") if "encoded" in account else ("kept", "pictures with captions")
    )
    remaining = account["downloaded"] - sum(account["dropped"].values())
    return [*rows, (*last, account.get("encoded", remaining))]
