"""The folder of our Prefect server: a damaged database stops no run, and a group can share it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prefect
import pytest
from alembic.script import ScriptDirectory

from flows.orchestration import prefect_home
from flows.orchestration.prefect_home import SCHEMA, database_may_be_the_cause, prepare_home
from flows.terminal.errors import UserError


@contextlib.contextmanager
def umask(mask: int):  # type: ignore[no-untyped-def]
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def sound(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE flow (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        database.executemany(
            "INSERT INTO flow (name) VALUES (?)", [(f"flow-{i}" * 50,) for i in range(500)]
        )


def tables(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}


def random_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n" * 100)


def cut_short(path: Path) -> None:
    sound(path)
    os.truncate(path, path.stat().st_size // 2)


def a_page_of_zeros(path: Path) -> None:
    sound(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(20_000))


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("damage", [random_bytes, text, cut_short, a_page_of_zeros, a_folder])
def test_a_damaged_database_is_set_aside_and_said(
    damage: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(tmp_path / "prefect.db")
    (tmp_path / "prefect.db-wal").touch()
    prepare_home(tmp_path)
    assert "flow_run" in tables(tmp_path / "prefect.db"), "a new database"
    assert not (tmp_path / "prefect.db-wal").exists()
    (aside,) = tmp_path.glob("prefect.db.damaged-??????????????*[0-9]")
    assert str(aside) in capsys.readouterr().err.replace("\n", "")


def test_a_sound_database_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "prefect.db")
    before = (tmp_path / "prefect.db").read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as busy, busy:
        busy.execute("BEGIN EXCLUSIVE")
        prepare_home(tmp_path)
    assert (tmp_path / "prefect.db").read_bytes() == before
    assert not capsys.readouterr().err


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_files_have_the_mode_that_the_umask_gives(mask: int, tmp_path: Path) -> None:
    home = tmp_path / "data" / "prefect"
    with umask(mask):
        prepare_home(home)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes == dict.fromkeys(("prefect.db", "memo_store.toml"), 0o666 & ~mask)
    assert stat.S_IMODE(home.stat().st_mode) == 0o777 & ~mask


def test_what_another_user_keeps_to_themselves_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_home(tmp_path)
    database = tmp_path / "prefect.db"
    monkeypatch.setattr(os, "access", lambda path, _: path != database)
    with pytest.raises(
        UserError, match=r"prefect\.db cannot be written by this user.*\n  chmod -R g\+rwX"
    ):
        prepare_home(tmp_path)


def test_a_failed_start_costs_no_history_where_another_cause_is_known(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").touch()
    assert not database_may_be_the_cause(tmp_path, "Can't locate revision"), (
        "there is nothing in it"
    )
    sound(tmp_path / "prefect.db")
    assert database_may_be_the_cause(tmp_path, "Can't locate revision identified by 'abc'")
    for log in (
        "database is locked",
        "OSError: [Errno 28] No space left on device",
        "Too many open files",
    ):
        assert not database_may_be_the_cause(tmp_path, log)


def test_a_new_database_needs_no_migration(tmp_path: Path) -> None:
    """Else a new workspace waits ten seconds for its first stage."""
    prepare_home(tmp_path)
    migrations = Path(prefect.__file__).parent / "server/database/_migrations"
    scripts = ScriptDirectory(str(migrations), version_locations=[f"{migrations}/versions/sqlite"])
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        (newest,) = database.execute("SELECT version_num FROM alembic_version").fetchall()
    assert list(newest) == scripts.get_heads(), "run python -m tools.write_prefect_schema"


def test_another_version_of_prefect_makes_its_own_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_home, "version", lambda _: "3.9.0")
    prepare_home(tmp_path)
    assert not tables(tmp_path / "prefect.db")


@pytest.mark.parametrize("length", [0.2, 0.5, 0.99])
def test_tables_are_made_whole_or_not_at_all(
    length: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = SCHEMA.read_text()
    cut = tmp_path / "cut.sql"
    cut.write_text(script[: int(len(script) * length)])
    monkeypatch.setattr(prefect_home, "SCHEMA", cut)
    prepare_home(tmp_path / "home")
    assert not tables(tmp_path / "home" / "prefect.db")
    monkeypatch.undo()
    prepare_home(tmp_path / "home")
    assert "flow_run" in tables(tmp_path / "home" / "prefect.db")


def test_processes_that_begin_together_make_one_database(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(prepare_home, [tmp_path] * 8))
    assert "flow_run" in tables(tmp_path / "prefect.db")
    assert not list(tmp_path.glob("*.damaged-*"))
