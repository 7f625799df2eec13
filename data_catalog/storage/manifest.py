"""What a stage left behind: a Manifest of Shards. Written last, by rename; checked on read.

A folder without a manifest was interrupted: the stage resumes inside it, and readers refuse it. Knows
nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.storage.cached_files import MARKS, discard, is_away, local, marked, push_beside
from data_catalog.storage.files import delete_folder, flush_folder, write_atomically

MANIFEST_NAME = "manifest.json"
_RECEIPT_SUFFIX = "_stats.json"
_RELEASED_SUFFIX = ".released"


class ManifestError(ValueError):
    """An output that is missing, unfinished or damaged; the message says what to run."""

    exit_code = 2


class FileRecord(BaseModel):
    """What a file was when it was finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Shard(BaseModel):
    """One unit of work: some rows in some files. Its digest covers what the rows mean, nothing else; the
    records of its files cover every byte, so that damage is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    digest: str
    files: dict[str, FileRecord]
    """File name -> its size and digest."""
    recipe: str = ""
    """Digest of all that it was made from, where another output may use it (data_catalog/storage/shard_reuse.py)."""
    figures: dict[str, Any] = {}
    """Counts and measurements of this shard."""


class Manifest(BaseModel):
    """The receipt of a stage: what it made, from what, by which run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    fingerprint: str
    digest: str
    """SHA-256 of the content; what depends on this output is stale when it changes."""
    rows: int
    shards: tuple[Shard, ...]
    figures: dict[str, Any]
    """Measurements of the whole output: counts by cause, errors, scores."""
    settings: dict[str, Any]
    parents: dict[str, str]
    """Stage -> digest of its content."""
    made_by: str
    """Id of the MLflow run that made it, or "" where none did."""
    made_at: str
    seconds: float
    hardware: str = ""
    """The machine it was made on."""
    name: str = ""
    """Name of the run that made it."""
    folder: Path

    def file(self, name: str) -> Path:
        """The path of one of the files, which is fetched where it is away in object storage."""
        return local(self.folder / name)


def content_digest(shards: Iterable[Shard]) -> str:
    """The digest of an output: that of its shards, in order."""
    return hashlib.sha256("\n".join(f"{shard.name} {shard.digest}" for shard in shards).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """SHA-256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_records(paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Size and digest of finished files, by name."""
    return {path.name: FileRecord(bytes=path.stat().st_size, sha256=file_digest(path)) for path in paths}


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest into its folder: the last thing a stage does."""
    write_atomically(manifest.folder / MANIFEST_NAME, manifest.model_dump_json(indent=2, exclude={"folder"}) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where the stage did not finish. Raises ManifestError where a
    file that it names is gone or of another size."""
    manifest = read_manifest_alone(folder)
    if manifest is None:
        return None
    for shard in manifest.shards:
        if problem := _damage(folder, shard):
            raise ManifestError(
                f"{folder}: {problem}; `tld catalog verify … --repair` or the next `tld run` makes its shard again, "
                f"`tld {manifest.stage} … --force` all of them"
            )
    return manifest


def read_manifest_alone(folder: Path) -> Manifest | None:
    """The manifest of a folder, whatever became of its files. Raises ManifestError where it is unreadable."""
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate({**json.loads(path.read_text(encoding="utf-8")), "folder": folder})
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        raise ManifestError(f"{path} is damaged ({str(error).splitlines()[0]}); rerun with --force") from error


def receipt_path(folder: Path, shard: str) -> Path:
    """Where the receipt of a shard lies."""
    return folder / (shard + _RECEIPT_SUFFIX)


def write_receipt(folder: Path, shard: Shard) -> None:
    """Say that a shard is finished: after its files are in place."""
    write_atomically(receipt_path(folder, shard.name), shard.model_dump_json(indent=2) + "\n")


def read_receipt(folder: Path, name: str) -> Shard | None:
    """The receipt of a finished shard whose files are all there, or None."""
    try:
        shard = Shard.model_validate_json(receipt_path(folder, name).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return None if _damage(folder, shard) else shard


def finished_shards(folder: Path) -> list[Shard]:
    """All finished shards of a folder, in order of their names."""
    names = sorted(path.name.removesuffix(_RECEIPT_SUFFIX) for path in folder.glob("*" + _RECEIPT_SUFFIX))
    return [shard for name in names if (shard := read_receipt(folder, name))]


def forget(folder: Path) -> None:
    """Remove manifest, receipts and unfinished work (subfolders), so that a forced stage does it all
    again; finished files stay until they are replaced."""
    receipts, marks = folder.glob("*" + _RECEIPT_SUFFIX), folder.glob("*" + _RELEASED_SUFFIX)
    discard([folder / MANIFEST_NAME, *receipts, *marks])
    for path in folder.iterdir():
        if path.is_dir():
            if path.name != MARKS:  # those are of the finished files
                discard(marked(path))
            delete_folder(path)


def forget_shard(folder: Path, shard: Shard) -> None:
    """Remove manifest and one shard's receipt, so that the stage does this shard again and no other."""
    marks = (_release_mark(folder, name) for name in shard.files)
    discard([folder / MANIFEST_NAME, receipt_path(folder, shard.name), *marks])


def release(folder: Path, name: str) -> None:
    """Delete a file on purpose: it is marked first, so that its output counts as whole without it."""
    mark = _release_mark(folder, name)
    mark.touch()
    flush_folder(folder)
    push_beside(mark, folder / name)
    discard([folder / name])


def is_released(folder: Path, name: str) -> bool:
    """Whether a file was deleted on purpose."""
    return _release_mark(folder, name).exists() and not (folder / name).exists()


def is_account(path: Path) -> bool:
    """Whether a file tells of others: a receipt, or the mark of one deleted on purpose."""
    return path.name.endswith((_RECEIPT_SUFFIX, _RELEASED_SUFFIX))


def is_release(path: Path) -> bool:
    """Whether a file is the mark of one deleted on purpose: without it an output would count as damaged."""
    return path.name.endswith(_RELEASED_SUFFIX)


def _release_mark(folder: Path, name: str) -> Path:
    return folder / (name + _RELEASED_SUFFIX)


def _damage(folder: Path, shard: Shard) -> str | None:
    for name, record in shard.files.items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            if is_released(folder, name) or is_away(folder / name, record.bytes):
                continue
            return f"{name} is missing"
        if found != record.bytes:
            return f"{name} has {found} bytes, not {record.bytes}"
    return None
