"""Row counts of the input by outcome, for manifests, tables and reports."""

from __future__ import annotations

from data_catalog.storage.manifest import StoredValues


class Account(StoredValues):
    """The number of rows of a URL table or image source by what became of them."""

    rows: int
    """Rows of the input."""
    rejected: dict[str, int]
    """Reason -> rows that could not be used."""
    failed: dict[str, int]
    """Cause -> rows whose download failed."""
    downloaded: int
    """Rows whose image was downloaded."""
    dropped: dict[str, int]
    """Reason -> pairs that were left out afterwards."""
    encoded: int | None = None
    """Pairs that were encoded; None before they are."""


def account_rows(account: Account) -> list[tuple[str, str, int]]:
    """The rows of the input as (kind, cause, rows). The first entry is the total of the rest."""
    rows = [("input", "rows of the input", account.rows)]
    for kind, causes in (
        ("rejected", account.rejected),
        ("failed", account.failed),
        ("dropped", account.dropped),
    ):
        rows += [(kind, cause, count) for cause, count in causes.items()]
    if account.encoded is not None:
        return [*rows, ("encoded", "pairs encoded", account.encoded)]
    remaining = account.downloaded - sum(account.dropped.values())
    return [*rows, ("kept", "images with captions", remaining)]
