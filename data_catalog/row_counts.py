"""Row counts of a URL table by outcome, for tables and reports."""

from __future__ import annotations

from typing import Any


def account_rows(account: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The rows of a URL table as (kind, cause, rows). The first entry is the total of the rest."""
    rows = [("table", "rows of the URL table", account["rows"])]
    for kind in ("rejected", "failed", "dropped"):
        rows += [(kind, cause, count) for cause, count in account[kind].items()]
    last = (
        ("encoded", "pairs encoded") if "encoded" in account else ("kept", "images with captions")
    )
    remaining = account["downloaded"] - sum(account["dropped"].values())
    return [*rows, (*last, account.get("encoded", remaining))]
