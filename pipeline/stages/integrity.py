"""Files compared with their digests before a stage reads them."""

from __future__ import annotations

from pathlib import Path

from data_catalog.storage.digests import FileRecord, file_digest
from data_catalog.storage.manifest import Manifest, ManifestError
from pipeline.stages.contract import ShowsProgress


def damage_of(path: Path, record: FileRecord) -> str | None:
    """What is wrong with a file that should be as its record says, or None. Reads all of it."""
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
        raise  # nobody knows whether it is damaged
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def refuse_damaged(path: Path, record: FileRecord) -> None:
    """Raise ManifestError where a file is not what it was when it was finished, to the last bit:
    what is made of it would be wrong, and would count as whole."""
    if problem := damage_of(path, record):
        raise ManifestError(f"{path} {problem}; mend it with `tld catalog verify … --repair`")


def refuse_damaged_shards(output: Manifest, show: ShowsProgress) -> None:
    """Read all files of an output: a flipped bit would go unseen into what is made of it.

    Raises:
        ManifestError: names the first file that is not what it was.
    """
    records = {name: record for shard in output.shards for name, record in shard.files.items()}
    for done, (name, record) in enumerate(records.items()):
        show.progress(done, len(records), f"checking {output.stage} files")
        refuse_damaged(output.file(name), record)
