"""The folder of our Prefect server, with a database that all users of the workspace can write.

The tables of a new database come from prefect_schema.sql, which `python -m
tools.write_prefect_schema` writes: Prefect itself would make them in some hundred migrations, which
take ten seconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path

from flows.terminal.console import say
from flows.terminal.errors import UserError

_DATABASE = "prefect.db"
_MEMO = "memo_store.toml"  # which of Prefect's built-in records are in the database
SCHEMA = Path(__file__).with_name("prefect_schema.sql")
SCHEMA_VERSION = "-- prefect "  # the first line of that file, and a version


def prepare_home(home: Path) -> None:
    """Create the folder and its files if there are none, and set a damaged database aside. Raises
    UserError if they are not writable."""
    database = home / _DATABASE
    try:
        home.mkdir(parents=True, exist_ok=True)
        if database.exists() and not _is_sound(database):
            set_aside(home)
        for path in (database, home / _MEMO):
            # Files created here have the mode of the umask. Prefect and SQLite would lock out
            # other users of a group.
            if not path.exists():
                path.touch(mode=0o666)
        if database.exists() and not database.stat().st_size:
            _create_tables(database)
    except PermissionError as error:
        raise UserError(_not_writable(Path(error.filename or home))) from None
    for path in (home, database):
        if not os.access(path, os.W_OK):
            raise UserError(_not_writable(path))


def _create_tables(database: Path) -> None:
    """Create the tables of Prefect's newest migration, in one transaction. If this fails, or
    another version of Prefect is installed, its server creates them."""
    script = SCHEMA.read_text(encoding="utf-8")
    if script.splitlines()[0] != f"{SCHEMA_VERSION}{version('prefect')}":
        return
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(database)) as connection,
    ):
        connection.executescript(script)


def set_aside(home: Path) -> None:
    """Rename the database, so that the server creates a new one. It contains only the history of
    runs, no results."""
    aside = home / f"{_DATABASE}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            (home / f"{_DATABASE}{suffix}").rename(f"{aside}{suffix}")
    (home / _MEMO).unlink(missing_ok=True)
    say(
        f"warning: Prefect's history of earlier runs is damaged. It was moved to {aside}, and a "
        "new one begins"
    )


def database_may_be_the_cause(home: Path, log: str) -> bool:
    """Whether a server that ended while starting may start with a new database, by its log."""
    other_causes = (
        "database is locked",
        "disk is full",
        "No space left",
        "readonly database",
        "address already in use",
        "Read-only file system",
        "Too many open files",
        "MemoryError",
        "ModuleNotFoundError",
    )
    is_used = (home / _DATABASE).is_dir() or (home / _DATABASE).stat().st_size > 0
    has_room = shutil.disk_usage(home).free > 16 * 1024**2
    return is_used and has_room and not any(text in log for text in other_causes)


def _is_sound(database: Path) -> bool:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True)
        ) as connection:
            return [row[0] for row in connection.execute("PRAGMA quick_check")] == ["ok"]
    except sqlite3.OperationalError:
        return not database.is_dir()  # it is locked or not readable by us, which is no damage
    except sqlite3.DatabaseError:
        return False


def _not_writable(path: Path) -> str:
    path = path.absolute()
    return (
        f"{path} cannot be written by this user. Its owner can share it with the group:\n"
        f"  chmod -R g+rwX {path if path.is_dir() else path.parent}\n"
        "or choose a workspace of your own with root=FOLDER"
    )
