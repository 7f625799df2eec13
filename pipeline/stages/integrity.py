"""Integrity checks: files are compared with their recorded digests before a stage reads them."""

from __future__ import annotations

from pathlib import Path

from data_catalog.storage.digests import FileRecord, file_digest
from data_catalog.storage.manifest import Manifest, ManifestError
from pipeline.stages.contract import ShowsProgress


def damage_of(path: Path, record: FileRecord) -> str | None:
    """How a file differs from its record, or None. Reads the whole file."""
    try:
        size = path.stat().st_size
        if size != record.bytes:
            return f"has {size} bytes, not {record.bytes}"
        return (
            None
            if file_digest(path) == record.sha256
            else "has other content than when it was finished"
        )
    except FileNotFoundError:
        return "is missing"
    except PermissionError:
        raise  # whether it is damaged is unknown
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def refuse_damaged(path: Path, record: FileRecord) -> None:
    """Raise ManifestError if any bit of a file has changed since it was finished, because outputs
    made from it would be wrong and yet count as valid."""
    if problem := damage_of(path, record):
        raise ManifestError(f"{path} {problem}; repair it with `tld catalog verify … --repair`")


def refuse_damaged_shards(output: Manifest, show: ShowsProgress) -> None:
    """Check all files of an output, because a flipped bit would silently spread into the outputs
    made from it. Raises ManifestError, which names the first damaged file."""
    records = {name: record for shard in output.shards for name, record in shard.files.items()}
    for done, (name, record) in enumerate(records.items()):
        show.progress(done, len(records), f"checking {output.stage} files")
        refuse_damaged(output.file(name), record)
    show.progress(len(records), len(records), f"checked {output.stage} files")
