"""One process at a time, also where a lock is deleted with its folder, as `tld clean` does."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock


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
