"""Functions that crash, hang and take memory, in the process that is theirs."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.compute.isolated_process import (
    CRASHED,
    TOO_LARGE,
    TOO_SLOW,
    Budget,
    Isolated,
    Refused,
)
from pipeline.compute.resource_limits import Shortage
from tests.support.command import is_running


def work(mark: Path, body: bytes) -> tuple[str, int]:
    match body:
        case b"crash":
            os.abort()
        case b"killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"killed once" if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case b"compute":
            while True:
                pass
        case b"take":
            bytearray(1 << 30)
        case b"raise":
            raise KeyError("of the function")
        case b"print":
            os.write(2, b"as libtiff does")
    return body.decode(), os.getpid()


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated[tuple[str, int]]]:
    mark = tmp_path_factory.mktemp("mark") / "mark"
    isolated = Isolated(partial(work, mark), Budget(cpu_s=0.3, memory=300 << 20))
    yield isolated
    isolated.close()


@pytest.mark.parametrize(
    ("body", "cause"),
    [(b"crash", CRASHED), (b"killed", TOO_LARGE), (b"compute", TOO_SLOW), (b"take", TOO_LARGE)],
)
def test_what_takes_a_process_down_is_refused_and_the_next_is_answered(
    isolated: Isolated[Any], body: bytes, cause: str
) -> None:
    with pytest.raises(Refused, match=cause):
        isolated(body)
    answer, pid = isolated(b"next")
    assert answer == "next"
    assert pid != os.getpid()


def test_a_process_is_kept_and_one_that_was_killed_by_chance_blames_nobody(
    isolated: Isolated[Any],
) -> None:
    _, first = isolated(b"first")
    assert isolated(b"")[1] == first
    with pytest.raises(KeyError, match="of the function"):
        isolated(b"raise")
    assert isolated(b"second")[1] == first
    assert isolated(b"killed once")[1] != first


def test_c_libraries_are_not_heard(
    isolated: Isolated[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert isolated(b"print")[0] == "print"
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_who_asks(tmp_path: Path) -> None:
    isolated = Isolated(partial(work, tmp_path), Budget(1, 300 << 20))
    _, pid = isolated(b"")
    del isolated
    gc.collect()
    assert not is_running(pid)


def test_a_machine_without_memory_or_processes_blames_no_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(Shortage, match=r"no memory left to decode images: lower download\.workers"):
        Isolated(partial(work, Path()), Budget(1, 1 << 20))(b"take")

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(Shortage, match=r"could not be started \(Resource temporarily .*ulimit"):
        Isolated(partial(work, Path()), Budget(1, 1 << 20))(b"")


def test_descriptors_that_are_taken_for_a_moment_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    popen, pauses = subprocess.Popen, list[float]()

    def refuse_at_first(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        if len(pauses) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return popen(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse_at_first)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with closing(Isolated(partial(work, tmp_path), Budget(1, 300 << 20))) as isolated:
        isolated.start()
        _, pid = isolated(b"")
        assert is_running(pid)
