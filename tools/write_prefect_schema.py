"""Writer of flows/orchestration/prefect_schema.sql, the tables of Prefect's newest migration.

`python -m tools.write_prefect_schema` lets a Prefect server create its database in an empty folder,
and writes the tables down without their rows. It is run when another version of Prefect is locked.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

from flows.orchestration.prefect_home import SCHEMA, SCHEMA_VERSION
from flows.orchestration.prefect_server import prefect_server

_VERSION = 'INSERT INTO "alembic_version"'


def main() -> None:
    """Write the file."""
    SCHEMA.write_text(
        f"{SCHEMA_VERSION}{version('prefect')}\n{schema_by_migrations()}\n", encoding="utf-8"
    )


def schema_by_migrations() -> str:
    """SQL that creates the tables as the migrations do, with the number of the newest one."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "prefect.db"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # no longer empty, so nothing fills it
        with prefect_server(database.parent):
            pass
        return schema_of(database)


def schema_of(database: Path) -> str:
    """SQL that creates the tables of a database, with the number of its newest migration."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        statements = [line for line in connection.iterdump() if _is_of_schema(line)]
    if not any(statement.startswith(_VERSION) for statement in statements):
        raise SystemExit("no server has made the tables; is PREFECT_API_URL set?")
    statements[0] = "BEGIN EXCLUSIVE;"
    return "\n".join(line.rstrip() for line in "\n".join(statements).splitlines())


def _is_of_schema(statement: str) -> bool:
    return not statement.startswith("INSERT") or statement.startswith(_VERSION)


if __name__ == "__main__":
    main()
