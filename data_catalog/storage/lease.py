"""An output that is made here and kept in object storage: what is finished is pushed while the work goes on, and no
other machine works on it meanwhile.

Who may is the newest of numbered leases beside the output, made by an exclusive write; its holder touches it. One that
stays untouched has lost its holder: the next number follows, and should the holder wake it finds itself outrun. No
clock is compared. Knows nothing of what the work is.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.storage.cached_files import ObjectStorageError, create, discard, filesystem_of, is_copy, push, telling
from data_catalog.storage.manifest import MANIFEST_NAME, is_account
from data_catalog.storage.object_store import ObjectStore

BEAT_S = 10.0
SILENCE_S = 45.0  # of a holder that is gone
_PAUSES_S = (5.0, 20.0, 60.0)  # between tries to push what is finished, at the end
_LEASES = ".leases"
_LOCAL_ONLY = {"train.lock", "job.json", "train.log"}
_AT_A_TIME = 8


class HeldElsewhere(RuntimeError):
    """Another machine works on this output."""


@dataclass(slots=True)
class Lease:
    """The right to write an output."""

    url: str  # of the leases
    number: int
    folder: Path
    since: str
    _beats: int = 0

    def touch(self) -> None:
        """Show that the holder lives. Raises HeldElsewhere where another has taken over, or ObjectStorageError."""
        newest = _leases(self.url)[-1:]
        if not any(number == self.number and self._is_mine(told) for number, told in newest):
            raise HeldElsewhere(f"{self.url.rpartition('/')[0]} was taken over by another machine, which goes on")
        self._beats += 1
        with telling(self.url):
            filesystem_of(self.url).pipe_file(
                _lease(self.url, self.number), _told(self.folder, self.since, self._beats)
            )

    def release(self) -> None:
        """Let others write."""
        mine = _lease(self.url, self.number)
        with telling(self.url), suppress(FileNotFoundError):
            if self._is_mine(json.loads(filesystem_of(self.url).cat_file(mine))):
                filesystem_of(self.url).rm_file(mine)

    def _is_mine(self, told: dict[str, Any]) -> bool:
        """Whether a lease of this number is this one: numbers begin anew where all were given back."""
        return _identity(self.folder, self.since).items() <= told.items()


def claim(output: str, folder: Path) -> Lease:
    """Become the one who writes an output (its URL) from a folder, which is locked against other processes of this
    machine. Raises HeldElsewhere, or ObjectStorageError."""
    url = f"{output}/{_LEASES}"
    leases = _leases(url)
    number, told = leases[-1] if leases else (0, {})
    if leases and not _was_ours(told, folder):
        _wait_for_silence(url, number, told)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with telling(url):
        filesystem = filesystem_of(url)
        try:
            create(filesystem, _lease(url, number + 1), _told(folder, since, 0))
        except FileExistsError:
            raise HeldElsewhere(f"{output} is being made by another machine, which was faster; wait for it") from None
        for old, _ in leases:
            with suppress(FileNotFoundError):
                filesystem.rm_file(_lease(url, old))
    return Lease(url, number + 1, folder, since)


@contextmanager
def leased(output: str, folder: Path) -> Iterator[Lease]:
    """Claim an output for the length of the block, and show that the holder lives, however long it fetches or pushes.
    Raises HeldElsewhere, or ObjectStorageError."""
    lease, ended = claim(output, folder), threading.Event()

    def touch() -> None:
        while not ended.wait(BEAT_S):
            with suppress(HeldElsewhere, ObjectStorageError):  # who is outrun learns it before the next push
                lease.touch()

    thread = threading.Thread(target=touch, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(ObjectStorageError):
            lease.release()


def _wait_for_silence(url: str, number: int, told: dict[str, Any]) -> None:
    """Return once the holder of the newest lease is gone. Raises HeldElsewhere as soon as it shows that it lives."""
    give_up = time.monotonic() + SILENCE_S
    while time.monotonic() < give_up:
        time.sleep(min(1.0, SILENCE_S / 4))
        leases = _leases(url)
        if not leases:
            return
        if leases[-1] != (number, told):
            by = leases[-1][1]
            raise HeldElsewhere(
                f"{url.rpartition('/')[0]} is being made by {by['host']} (process {by['process']}, "
                f"since {by['since']}); wait for it, or stop it"
            )


def _was_ours(told: dict[str, Any], folder: Path) -> bool:
    """Whether the holder was a process of this machine, which has ended: we hold its folder's lock."""
    return _holder(folder).items() <= told.items()


def _leases(url: str) -> list[tuple[int, dict[str, Any]]]:
    """Numbers of the leases, the newest last, and what the newest says; that of the others is left out."""
    with telling(url):
        filesystem = filesystem_of(url)
        try:
            listed = [str(name).rpartition("/")[2] for name in filesystem.ls(url, detail=False)]
        except FileNotFoundError:
            return []
        names = sorted(name for name in listed if name.isdigit())  # some list the folder too
        if not names:
            return []
        try:
            newest = json.loads(filesystem.cat_file(_lease(url, int(names[-1]))))
        except FileNotFoundError:
            return _leases(url)  # just released, or followed by another
    return [*((int(name), {}) for name in names[:-1]), (int(names[-1]), newest)]


def _lease(url: str, number: int) -> str:
    return f"{url}/{number:08d}"


def _told(folder: Path, since: str, beats: int) -> bytes:
    return json.dumps({**_identity(folder, since), "beats": beats}).encode()


def _identity(folder: Path, since: str) -> dict[str, str | int]:
    return {**_holder(folder), "process": os.getpid(), "since": since}


def _holder(folder: Path) -> dict[str, str]:
    """What no two machines have in common."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text(encoding="utf-8").strip() if boot.exists() else ""
    return {"host": socket.gethostname(), "started": started, "folder": str(folder.resolve())}


@dataclass(slots=True)
class Keeper:
    """Pushes what is finished of one output, from a thread of its own."""

    store: ObjectStore
    lease: Lease
    most_bytes: int  # of copies in the whole workspace
    warn: Callable[[str], None]
    _seen: set[Path] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _outrun: HeldElsewhere | None = None
    _warned: bool = False

    def follow(self) -> None:
        """Push every few seconds, until stopped. A storage that does not answer is asked again."""
        while not self._stop.wait(BEAT_S):
            try:
                self.lease.touch()
                self.push()
                self.store.let_go(self.most_bytes)
            except HeldElsewhere as error:
                self._outrun = error
                self.warn(str(error))
                return
            except ObjectStorageError as error:
                if not self._warned:
                    self.warn(f"{error}; the work goes on, what is finished is kept here and pushed later")
                self._warned = True

    def push(self) -> None:
        """Push what is new: receipts after the files that they name. Files of subfolders (checkpoints) that the stage
        deleted go from the storage too; one of the folder itself may be gone for want of room. Raises
        ObjectStorageError."""
        accounts = [path for path in self._files() if is_account(path)]
        others = [path for path in self._files() if not is_account(path)]
        here = {*accounts, *others}
        discard(path for path in self._seen - here if path.parent != self.lease.folder)
        for part in (others, accounts):
            with ThreadPoolExecutor(_AT_A_TIME) as threads:
                list(threads.map(self._push_one, part))
        self._seen = here

    def _push_one(self, path: Path) -> None:
        if is_copy(path):
            return
        try:
            push(path, self.store.url_of(path))
        except ObjectStorageError:
            if path.exists():  # else the stage deleted it meanwhile
                raise

    def _files(self) -> list[Path]:
        """The finished files of the output. The manifest is written apart."""
        files = []
        for parent, folders, names in os.walk(self.lease.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [
                Path(parent) / name
                for name in names
                if not name.startswith(".") and not name.endswith(".partial") and name not in _LOCAL_ONLY
            ]
        return [path for path in files if path.name != MANIFEST_NAME]

    def finish(self, pauses_s: tuple[float, ...] = _PAUSES_S) -> None:
        """Push the rest, then the manifest where it was written, which no other may have done meanwhile.
        Raises HeldElsewhere, or ObjectStorageError."""
        if self._outrun:
            raise self._outrun
        for pause in pauses_s:
            with suppress(ObjectStorageError):
                return self._finish()
            time.sleep(pause)
        return self._finish()

    def _finish(self) -> None:
        self.lease.touch()
        self.push()
        manifest = self.lease.folder / MANIFEST_NAME
        try:
            if manifest.exists() and not is_copy(manifest):
                push(manifest, self.store.url_of(manifest), new=True)
        except FileExistsError:
            raise HeldElsewhere(f"{self.store.url_of(manifest)} was written by another machine meanwhile") from None

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def kept_in(store: ObjectStore, lease: Lease, most_bytes: int, warn: Callable[[str], None]) -> Iterator[None]:
    """While work goes on in the folder of a lease, and at its end, whatever that is, keep what it has finished."""
    keeper = Keeper(store, lease, most_bytes, warn)
    thread = threading.Thread(target=keeper.follow, name="keeper", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        keeper.stop()
        thread.join()
        with suppress(HeldElsewhere, ObjectStorageError):
            keeper.finish(pauses_s=())
        raise
    else:
        keeper.stop()
        thread.join()
        keeper.finish()
