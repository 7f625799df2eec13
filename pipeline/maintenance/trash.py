"""The trash of a workspace: move files into it, restore them, and delete them for good."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.files import make_folder, write_atomically
from data_catalog.storage.workspace import Workspace
from pipeline.maintenance.cleanup import UnneededFile
from pipeline.maintenance.inventory import freed_by

_LIST = "moved.json"  # paths in the workspace, in the order in which they were moved


@dataclass(frozen=True, slots=True)
class Undone:
    """What `undo` restored from the trash."""

    restored: tuple[Path, ...]
    in_the_way: tuple[Path, ...]  # existing files, whose former versions stay in the trash


def move_to_trash(root: Path, files: Sequence[UnneededFile]) -> tuple[Path, dict[Path, str]]:
    """Move files to a new folder in the trash. Returns that folder, and the files that were not
    moved with the reason."""
    folder = _new_folder(root)
    names = [str(item.path.relative_to(root)) for item in files]
    # Written first, so that `undo` works after a kill.
    write_atomically(folder / _LIST, json.dumps(names, indent=2) + "\n")
    reasons = {
        item.path: _move(item, folder / name) for item, name in zip(files, names, strict=True)
    }
    not_moved = {path: reason for path, reason in reasons.items() if reason}
    if len(not_moved) == len(files):
        shutil.rmtree(folder)
    return folder, not_moved


def undo(root: Path) -> Undone | None:
    """Restore the files that were moved last, unless something is in their place. Returns None if
    the trash is empty."""
    if not (folders := _folders(root)):
        return None
    restored, in_the_way = [], []
    for name in _listed(folders[-1]):
        source, target = folders[-1] / name, root / name
        if not os.path.lexists(source):
            continue
        if os.path.lexists(target):
            in_the_way.append(target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            restored.append(target)
    if not in_the_way:
        shutil.rmtree(folders[-1])
    return Undone(tuple(restored), tuple(in_the_way))


def bytes_in_trash(root: Path) -> int:
    """Bytes that emptying the trash would free."""
    items = [folder / name for folder in _folders(root) for name in _listed(folder)]
    return sum(freed_by([path for path in items if path.exists()]))


def empty_trash(root: Path) -> None:
    """Delete everything in the trash for good; for a link to a folder, the folder itself."""
    for folder in _folders(root):
        for path in (folder / name for name in _listed(folder)):
            if path.is_symlink() and path.is_dir():
                shutil.rmtree(path.resolve())
        shutil.rmtree(folder)


def _new_folder(root: Path) -> Path:
    trash, time = Workspace(root).trash, datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    make_folder(trash)
    number = 1
    while True:
        folder = trash / f"{time}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _folders(root: Path) -> list[Path]:
    """The folders of the trash, one per move, the latest last."""
    folders = [path.parent for path in Workspace(root).trash.glob(f"*/{_LIST}")]
    return sorted(
        folders,
        key=lambda folder: (folder.name.rpartition("-")[0], int(folder.name.rpartition("-")[2])),
    )


def _listed(folder: Path) -> list[str]:
    names: list[str] = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    return names


def _move(item: UnneededFile, target: Path) -> str | None:
    """Move a file. Returns why it was not moved, or None."""
    if not item.output.is_dir():
        return "it no longer exists"
    try:
        with file_lock(item.output / LOCK_NAME, timeout_s=0):
            make_folder(target.parent)
            if item.path.is_symlink():  # resolved, since a relative link would break
                target.symlink_to(item.path.resolve())
                item.path.unlink()
            else:
                item.path.rename(target)
    except LockTimeout:
        return "a process works in it"
    except FileNotFoundError:
        return "it no longer exists"
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return "it is on another disk than the workspace's trash"
    return None
