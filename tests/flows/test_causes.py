"""What a user is told of causes that lie outside."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
import pytest

from flows.causes import cause_outside
from flows.cli import _explain
from flows.outbox import Message, Outbox
from flows.prefect_server import PrefectServerError, free_port
from flows.tracking import _closing
from tests.support.command import CANARY
from tests.support.faults import fill, small_disk


def told_of(error: BaseException) -> str:
    told = cause_outside(error)
    assert told
    assert told.endswith("the same command goes on from it.")
    return told


def test_a_full_disk_is_told_whoever_met_it(tmp_path: Path) -> None:
    with small_disk(tmp_path, megabytes=1):
        database = sqlite3.connect(tmp_path / "db")
        database.execute("create table some (thing text)")
        database.commit()
        fill(tmp_path)
        with pytest.raises(OSError, match="No space") as by_file:
            (tmp_path / "more").write_text("x" * 8192)
        with pytest.raises(sqlite3.OperationalError) as by_database:
            database.executemany("insert into some values (?)", [("x" * 8192,)] * 8)
        database.close()
    wrapped = RuntimeError("MLflow says something long\nof many lines")
    wrapped.__cause__ = by_database.value
    for error in (by_file.value, by_database.value, wrapped):
        assert told_of(error).startswith("the disk is full: make room there")


def test_a_server_that_is_gone_is_told() -> None:
    with pytest.raises(httpx.ConnectError) as refused:
        httpx.get(f"http://127.0.0.1:{free_port()}")
    assert told_of(refused.value).startswith("the Prefect server does not answer any more")
    assert told_of(PrefectServerError("it did not start")).startswith("it did not start.")


def test_an_error_of_ours_stays_unexpected() -> None:
    assert cause_outside(KeyError("steps")) is None


def test_an_error_that_tells_an_address_tells_no_password(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = httpx.Request("GET", f"http://me:{CANARY}@prefect.example/api/health")
    told: list[Message] = []
    outbox = Outbox(told.append, tmp_path / "kept", print)
    with pytest.raises(httpx.HTTPStatusError) as refused, _closing(outbox, "a-run"):
        httpx.Response(401, request=asked).raise_for_status()
    outbox.close(60)
    assert "for url 'http://prefect.example/api/health'" in told[0].body["tld.error"]
    assert _explain(refused.value) == 1
    assert "for url 'http://prefect.example/api/health'" in capsys.readouterr().err
