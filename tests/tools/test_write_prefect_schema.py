"""The tables that are made without migrations are those that Prefect's migrations make."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.orchestration.prefect_home import SCHEMA, prepare_home
from tools.write_prefect_schema import schema_by_migrations, schema_of


@pytest.mark.slow
def test_the_file_is_what_the_locked_prefect_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    _version, _, script = SCHEMA.read_text().partition("\n")
    made = schema_by_migrations()
    assert _lines(script) == _lines(made), "run python -m tools.write_prefect_schema"


def test_a_new_database_holds_the_tables_of_the_file(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    assert schema_of(tmp_path / "prefect.db") in SCHEMA.read_text()


def _lines(script: str) -> list[str]:
    """The lines in an order of their own: that of constraints changes from one creation to the
    next."""
    return sorted(line.rstrip(", ") for line in script.splitlines())
