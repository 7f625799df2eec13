"""Leases that decide which machine may write an output in object storage.

The newest numbered lease beside an output decides. Its holder refreshes it every 10 s. After 45 s
without a refresh another machine takes over with the next number, and the former holder notices at
its next refresh. No clocks are compared: each machine measures for itself how long it has seen no
refresh.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.storage.object_access import (
    ObjectStorageError,
    create,
    filesystem_of,
    storage_errors,
)

BEAT_S = 10.0
SILENCE_S = 45.0  # without a refresh, after which a lease has expired
_LEASES = ".leases"


class LeaseTaken(RuntimeError):
    """Another machine holds the lease of this output."""


@dataclass(slots=True)
class Lease:
    """The right of this machine to write an output."""

    url: str  # of the folder of leases
    number: int
    folder: Path
    since: str
    _beats: int = 0

    @property
    def refresh_every_s(self) -> float:
        """Seconds between refreshes by the holder."""
        return BEAT_S

    def touch(self) -> None:
        """Refresh the lease.

        Raises:
            LeaseTaken: another machine has taken over.
            ObjectStorageError: object storage does not answer.
        """
        newest = _list_leases(self.url)[-1:]
        if not any(number == self.number and self._is_mine(holder) for number, holder in newest):
            raise LeaseTaken(
                f"{self.url.rpartition('/')[0]} was taken over by another machine, "
                "which continues the work"
            )
        self._beats += 1
        with storage_errors(self.url):
            filesystem_of(self.url).pipe_file(
                _lease_url(self.url, self.number), _serialized(self.folder, self.since, self._beats)
            )

    def release(self) -> None:
        """Give the lease back, so that other machines may write the output."""
        mine = _lease_url(self.url, self.number)
        with storage_errors(self.url), suppress(FileNotFoundError):
            if self._is_mine(json.loads(filesystem_of(self.url).cat_file(mine))):
                filesystem_of(self.url).rm_file(mine)

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        """Whether a lease of this number is this one. The number alone is not enough, because
        numbers start again at 1 when all leases were given back."""
        return _identity(self.folder, self.since).items() <= holder.items()


def claim(output: str, folder: Path) -> Lease:
    """Claim the right to write an output (its URL) from a folder. The caller must hold the folder's
    lock, which keeps out other processes of this machine.

    Raises:
        LeaseTaken: another machine holds the lease.
        ObjectStorageError: object storage does not answer.
    """
    url = f"{output}/{_LEASES}"
    leases = _list_leases(url)
    number, holder = leases[-1] if leases else (0, {})
    if leases and not _is_own_earlier(holder, folder):
        _wait_for_silence(url, number, holder)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with storage_errors(url):
        filesystem = filesystem_of(url)
        try:
            create(filesystem, _lease_url(url, number + 1), _serialized(folder, since, 0))
        except FileExistsError:
            raise LeaseTaken(
                f"{output} is being made by another machine, which claimed it first; wait for it"
            ) from None
        for old, _ in leases:
            with suppress(FileNotFoundError):
                filesystem.rm_file(_lease_url(url, old))
    return Lease(url, number + 1, folder, since)


@contextmanager
def hold_lease(output: str, folder: Path) -> Iterator[Lease]:
    """Hold the lease of an output while the block runs, and refresh it from a thread, so that long
    fetches and pushes do not lose it. Raises LeaseTaken and ObjectStorageError as `claim` does."""
    lease, ended = claim(output, folder), threading.Event()

    def keep_fresh() -> None:
        while not ended.wait(BEAT_S):
            # The uploader notices a lost lease before its next push.
            with suppress(LeaseTaken, ObjectStorageError):
                lease.touch()

    thread = threading.Thread(target=keep_fresh, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(ObjectStorageError):
            lease.release()


def _wait_for_silence(url: str, number: int, holder: dict[str, Any]) -> None:
    """Return when the newest lease has expired. Raises LeaseTaken as soon as its holder refreshes
    it."""
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE_S / 4))
        leases = _list_leases(url)
        if not leases:
            return
        if leases[-1] != (number, holder):
            newest = leases[-1][1]
            raise LeaseTaken(
                f"{url.rpartition('/')[0]} is being made by {newest['host']} "
                f"(process {newest['process']}, since {newest['since']}); wait for it, or stop it"
            )


def _is_own_earlier(holder: dict[str, Any], folder: Path) -> bool:
    """Whether the holder was an earlier process of this machine. It has ended, since this process
    now holds the folder's lock."""
    return _machine_identity(folder).items() <= holder.items()


def _list_leases(url: str) -> list[tuple[int, dict[str, Any]]]:
    """All leases as (number, content), the newest last. Only the newest is read; the content of the
    others is empty."""
    with storage_errors(url):
        filesystem = filesystem_of(url)
        try:
            listed = [str(name).rpartition("/")[2] for name in filesystem.ls(url, detail=False)]
        except FileNotFoundError:
            return []
        # Some file systems list the folder itself too.
        names = sorted(name for name in listed if name.isdigit())
        if not names:
            return []
        try:
            newest = json.loads(filesystem.cat_file(_lease_url(url, int(names[-1]))))
        except FileNotFoundError:
            return _list_leases(url)  # it was just released or replaced
    return [*((int(name), {}) for name in names[:-1]), (int(names[-1]), newest)]


def _lease_url(url: str, number: int) -> str:
    return f"{url}/{number:08d}"


def _serialized(folder: Path, since: str, beats: int) -> bytes:
    return json.dumps({**_identity(folder, since), "beats": beats}).encode()


def _identity(folder: Path, since: str) -> dict[str, str | int]:
    return {**_machine_identity(folder), "process": os.getpid(), "since": since}


def _machine_identity(folder: Path) -> dict[str, str]:
    """The host, its boot and the folder, which together no two machines have in common."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text(encoding="utf-8").strip() if boot.exists() else ""
    return {"host": socket.gethostname(), "started": started, "folder": str(folder.resolve())}
