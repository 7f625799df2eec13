"""Receipts of finished shards, and marks of files that were evicted on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.storage.cached_files import (
    RECORDS_FOLDER,
    discard,
    is_remote_only,
    iter_cached,
    push_beside,
)
from data_catalog.storage.digests import FileRecord
from data_catalog.storage.files import delete_folder, flush_folder, write_atomically

MANIFEST_NAME = "manifest.json"
_RECEIPT_SUFFIX = "_stats.json"
_RELEASED_SUFFIX = ".released"


class Shard(BaseModel):
    """One unit of work: some rows in some files. Its digest covers only the meaning of the rows;
    the records of its files cover every byte, so that damage is detected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    digest: str
    files: dict[str, FileRecord]
    """File name -> its size and digest."""
    recipe: str = ""
    """Digest of all inputs of the shard, if other outputs may reuse it
    (data_catalog/storage/shard_reuse.py)."""
    figures: dict[str, Any] = {}
    """Counts and measurements of this shard."""


def receipt_path(folder: Path, shard: str) -> Path:
    """The path of a shard's receipt."""
    return folder / (shard + _RECEIPT_SUFFIX)


def write_receipt(folder: Path, shard: Shard) -> None:
    """Record that a shard is finished. Call it after its files are in place."""
    write_atomically(receipt_path(folder, shard.name), shard.model_dump_json(indent=2) + "\n")


def read_receipt(folder: Path, name: str) -> Shard | None:
    """The receipt of a finished shard, or None if there is none or a file is missing or damaged."""
    try:
        shard = Shard.model_validate_json(receipt_path(folder, name).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return None if damage_by_size(folder, shard) else shard


def finished_shards(folder: Path) -> list[Shard]:
    """All finished shards of a folder, sorted by name."""
    names = sorted(
        path.name.removesuffix(_RECEIPT_SUFFIX) for path in folder.glob("*" + _RECEIPT_SUFFIX)
    )
    return [shard for name in names if (shard := read_receipt(folder, name))]


def invalidate(folder: Path) -> None:
    """Remove the manifest, the receipts and unfinished work (subfolders), so that a forced stage
    starts from scratch. Finished files stay until they are replaced."""
    receipts, marks = folder.glob("*" + _RECEIPT_SUFFIX), folder.glob("*" + _RELEASED_SUFFIX)
    discard([folder / MANIFEST_NAME, *receipts, *marks])
    for path in folder.iterdir():
        if path.is_dir():
            if path.name != RECORDS_FOLDER:  # records of finished files stay
                discard(iter_cached(path))
            delete_folder(path)


def invalidate_shard(folder: Path, shard: Shard) -> None:
    """Remove the manifest and one shard's receipt, so that the stage repeats only this shard."""
    eviction_marks = (_eviction_mark(folder, name) for name in shard.files)
    discard([folder / MANIFEST_NAME, receipt_path(folder, shard.name), *eviction_marks])


def evict(folder: Path, name: str) -> None:
    """Delete a file on purpose. It is marked as evicted first, so that its output counts as
    complete without it."""
    mark = _eviction_mark(folder, name)
    mark.touch()
    flush_folder(folder)
    push_beside(mark, folder / name)
    discard([folder / name])


def is_evicted(folder: Path, name: str) -> bool:
    """Whether a file was evicted on purpose."""
    return _eviction_mark(folder, name).exists() and not (folder / name).exists()


def is_bookkeeping(path: Path) -> bool:
    """Whether a file describes other files: a receipt, or the mark of an evicted file."""
    return path.name.endswith((_RECEIPT_SUFFIX, _RELEASED_SUFFIX))


def is_eviction_mark(path: Path) -> bool:
    """Whether a file is the mark of an evicted file, without which the output would count as
    damaged."""
    return path.name.endswith(_RELEASED_SUFFIX)


def _eviction_mark(folder: Path, name: str) -> Path:
    return folder / (name + _RELEASED_SUFFIX)


def damage_by_size(folder: Path, shard: Shard) -> str | None:
    """The first problem with a shard's files, or None. Only names and sizes are checked; contents
    are not read."""
    for name, record in shard.files.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            if is_evicted(folder, name) or is_remote_only(folder / name, record.bytes):
                continue
            return f"{name} is missing"
        if size != record.bytes:
            return f"{name} has {size} bytes, not {record.bytes}"
    return None
