"""One process at a time, also where a lock is deleted with its folder, as `tld clean` does."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock, holder_name, is_locked


def test_who_waited_for_a_lock_that_is_deleted_holds_the_one_that_is_there(tmp_path: Path) -> None:
    lock, waits, heard = tmp_path / "output" / LOCK_NAME, threading.Event(), list[str]()

    def wait_for_it() -> None:
        waits.set()
        with file_lock(lock, timeout_s=60):
            try:
                with file_lock(lock, timeout_s=0):
                    heard.append("two work there")
            except LockTimeout:
                heard.append("one works there")

    with file_lock(lock, timeout_s=0):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        waits.wait()
        with (
            pytest.raises(LockTimeout, match=r"process \d+\); wait for it"),
            file_lock(lock, timeout_s=0.3),
        ):
            """Meanwhile the other has come too."""
        shutil.rmtree(lock.parent)
    waiting.join()
    assert heard == ["one works there"]


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_is_deleted_while_its_lock_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def deleted_meanwhile(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise error("output")

    monkeypatch.setattr(Path, "mkdir", deleted_meanwhile)
    with file_lock(tmp_path / "output" / "lock", timeout_s=5):
        assert (tmp_path / "output" / "lock").exists()


def test_a_file_in_place_of_the_folder_is_no_reason_to_wait(tmp_path: Path) -> None:
    (tmp_path / "output").touch()
    with pytest.raises(FileExistsError), file_lock(tmp_path / "output" / "lock", timeout_s=600):
        pass


def test_who_looks_whether_a_file_is_locked_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / LOCK_NAME
    assert not is_locked(path), "there is no file"
    with file_lock(path, 0):
        assert is_locked(path)
        assert path.read_text() == holder_name(socket.gethostname(), os.getpid())
    with path.open() as another:
        fcntl.flock(another, fcntl.LOCK_SH)  # as one who looks at the same time
        assert not is_locked(path)
