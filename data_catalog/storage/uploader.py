"""Background upload of an output's finished files to object storage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.storage.cached_files import discard, is_copy, push
from data_catalog.storage.lease import Lease, LeaseTaken
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.object_store import ObjectStore
from data_catalog.storage.receipts import MANIFEST_NAME, is_bookkeeping

_PAUSES_S = (5.0, 20.0, 60.0)  # between attempts to push the remaining files at the end
_LOCAL_ONLY = {"train.lock", "job.json", "train.log"}
_AT_A_TIME = 8


@dataclass(slots=True)
class Uploader:
    """Pushes the finished files of one output from a thread of its own."""

    store: ObjectStore
    lease: Lease
    most_bytes: int  # of local copies in the whole workspace
    warn: Callable[[str], None]
    _seen: set[Path] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lost_lease: LeaseTaken | None = None
    _warned: bool = False

    def follow(self) -> None:
        """Push every few seconds until stopped. If the storage does not answer, retry later."""
        while not self._stop.wait(self.lease.refresh_every_s):
            try:
                self.lease.touch()
                self.push()
                self.store.evict(self.most_bytes)
            except LeaseTaken as error:
                self._lost_lease = error
                self.warn(str(error))
                return
            except ObjectStorageError as error:
                if not self._warned:
                    self.warn(
                        f"{error}; the work continues, and finished files are kept here and "
                        "uploaded later"
                    )
                self._warned = True

    def push(self) -> None:
        """Push new files, and receipts only after the files that they name.

        Files of subfolders (checkpoints) that the stage deleted are deleted from the storage too.
        A missing file of the folder itself stays in the storage, because it may have been evicted
        to make room. Raises ObjectStorageError.
        """
        receipts = [path for path in self._files() if is_bookkeeping(path)]
        others = [path for path in self._files() if not is_bookkeeping(path)]
        here = {*receipts, *others}
        discard(path for path in self._seen - here if path.parent != self.lease.folder)
        for part in (others, receipts):
            with ThreadPoolExecutor(_AT_A_TIME) as threads:
                list(threads.map(self._push_one, part))
        self._seen = here

    def _push_one(self, path: Path) -> None:
        if is_copy(path):
            return
        try:
            push(path, self.store.url_of(path))
        except ObjectStorageError:
            if path.exists():  # otherwise the stage has just deleted it
                raise

    def _files(self) -> list[Path]:
        """The finished files of the output, except the manifest, which is pushed separately."""
        files = []
        for parent, folders, names in os.walk(self.lease.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [
                Path(parent) / name
                for name in names
                if not name.startswith(".")
                and not name.endswith(".partial")
                and name not in _LOCAL_ONLY
            ]
        return [path for path in files if path.name != MANIFEST_NAME]

    def finish(self, pauses_s: tuple[float, ...] = _PAUSES_S) -> None:
        """Push the remaining files, then the manifest if the stage has written it.

        Raises:
            LeaseTaken: another machine took over or has already pushed a manifest.
            ObjectStorageError: object storage does not answer.
        """
        if self._lost_lease:
            raise self._lost_lease
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
            raise LeaseTaken(
                f"{self.store.url_of(manifest)} was written by another machine in the meantime"
            ) from None

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def uploading(
    store: ObjectStore, lease: Lease, most_bytes: int, warn: Callable[[str], None]
) -> Iterator[None]:
    """Upload the finished files of a lease's folder while the block runs, and the rest at its end,
    also after an error."""
    uploader = Uploader(store, lease, most_bytes, warn)
    thread = threading.Thread(target=uploader.follow, name="uploader", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        uploader.stop()
        thread.join()
        with suppress(LeaseTaken, ObjectStorageError):
            uploader.finish(pauses_s=())
        raise
    else:
        uploader.stop()
        thread.join()
        uploader.finish()
