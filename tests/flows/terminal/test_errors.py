"""What a user reads about causes that lie outside."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

from flows.cli.app import _explain
from flows.orchestration.prefect_server import PrefectServerError, free_port
from flows.terminal.errors import UserError, at_work, external_cause
from flows.tracking.outbox import Message, Outbox
from flows.tracking.run_lifecycle import closing_run
from pipeline.stages.contract import StageFailed
from tests.support.command import CANARY
from tests.support.faults import fill, small_disk


def told_of(error: BaseException) -> str:
    explanation = external_cause(error)
    assert explanation
    assert explanation.endswith("run the same command to resume.")
    return explanation


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
        assert told_of(error).startswith("the disk is full: free some space")


def test_a_server_that_has_no_room_for_its_database_is_told_from_one_that_is_gone(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path, megabytes=4):
        lost = RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/")
        with pytest.raises(RuntimeError, match="Failed to reach"), at_work(tmp_path):
            raise lost
        fill(tmp_path)
        with pytest.raises(OSError, match="No space left") as full, at_work(tmp_path):
            raise lost
        with pytest.raises(RuntimeError, match="of our own"), at_work(tmp_path):
            raise RuntimeError("of our own")
        with pytest.raises(RuntimeError, match="Failed to reach"), at_work(tmp_path / "gone"):
            raise lost
    assert told_of(full.value).startswith("the disk is full: free some space")


def test_a_server_that_is_gone_is_told() -> None:
    with pytest.raises(httpx.ConnectError) as refused:
        httpx.get(f"http://127.0.0.1:{free_port()}")
    assert told_of(refused.value).startswith("the Prefect server no longer answers")
    assert told_of(PrefectServerError("it did not start")).startswith("it did not start.")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(httpx.ReadTimeout) as no_answer,
    ):
        httpx.get(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
    slots = ConcurrencySlotAcquisitionError("Unable to acquire concurrency slots on ['tag:gpu']")
    for lost in (
        no_answer.value,
        slots,
        RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"),
    ):
        assert told_of(lost).startswith("the Prefect server no longer answers")
    assert external_cause(RuntimeError("of our own")) is None


@pytest.mark.parametrize(
    ("error", "says"),
    [
        *(
            (OSError(number, os.strerror(number)), "too many open files")
            for number in (errno.EMFILE, errno.ENFILE)
        ),
        *(
            (error, "memory ran out")
            for error in (MemoryError(), OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            "memory ran out",
        ),
        (RuntimeError("could not create a primitive"), "memory ran out"),
        (RuntimeError("std::bad_alloc"), "memory ran out"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "memory ran out"),
        (OSError("/tmp/a.so: failed to map segment from shared object"), "memory ran out"),
        (RuntimeError("can't start new thread"), "no more threads or processes"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "no more threads or processes"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "a file became larger"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk is full"),
    ],
    ids=str,
)
def test_a_lack_is_told_whoever_met_it(error: Exception, says: str) -> None:
    by_cleanup = AttributeError("DummyProcess has no attribute 'terminate'")
    by_cleanup.__context__ = error
    by_text = RuntimeError(f"another's words: {error!r}\nand more")
    of_worker = AttributeError("terminate")
    of_worker.add_note(
        f"Traceback (most recent call last):\n  x()\n{type(error).__name__}: {error}\n\nDuring …"
    )
    for one in (
        error,
        by_cleanup,
        by_text,
        of_worker,
        ExceptionGroup("several", [KeyError("x"), error]),
    ):
        assert told_of(one).startswith(says) or errno.ENFILE in error.args


def test_a_path_that_breaks_in_the_middle_of_work_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    broken = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "data/01_images")
    with (
        pytest.raises(StageFailed, match=r"(?s)cannot use data/01_images: .*is kept"),
        at_work(tmp_path),
    ):
        raise broken
    with pytest.raises(UserError, match="typed wrong"), at_work(tmp_path):
        raise UserError("typed wrong") from broken


def test_an_error_of_ours_stays_unexpected() -> None:
    assert external_cause(KeyError("steps")) is None
    assert (
        external_cause(RuntimeError("could not create a primitive descriptor for a convolution"))
        is None
    )


def test_an_error_that_tells_an_address_tells_no_password(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = httpx.Request("GET", f"http://me:{CANARY}@prefect.example/api/health")
    sent: list[Message] = []
    outbox = Outbox(sent.append, tmp_path / "kept", print)
    with pytest.raises(httpx.HTTPStatusError) as refused, closing_run(outbox, "a-run"):
        httpx.Response(401, request=asked).raise_for_status()
    outbox.close(60)
    assert "for url 'http://prefect.example/api/health'" in sent[0].body["tld.error"]
    assert _explain(refused.value) == 1
    assert "for url 'http://prefect.example/api/health'" in capsys.readouterr().err
