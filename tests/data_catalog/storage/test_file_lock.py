"""One process at a time, also where a lock is deleted with its folder, as `tld clean` does."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, StillHeld, held


def test_who_waited_for_a_lock_that_is_deleted_holds_the_one_that_is_there(tmp_path: Path) -> None:
    lock, waits, heard = tmp_path / "output" / LOCK_NAME, threading.Event(), list[str]()

    def wait_for_it() -> None:
        waits.set()
        with held(lock, patience_s=60):
            try:
                with held(lock, patience_s=0):
                    heard.append("two work there")
            except StillHeld:
                heard.append("one works there")

    with held(lock, patience_s=0):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        waits.wait()
        with pytest.raises(StillHeld, match=r"process \d+\); wait for it"), held(lock, patience_s=0.3):
            """Meanwhile the other has come too."""
        shutil.rmtree(lock.parent)
    waiting.join()
    assert heard == ["one works there"]
