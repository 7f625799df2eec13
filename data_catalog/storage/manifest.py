"""What a stage left behind: a Manifest of Shards. Written last, by rename; checked on read.

A folder without a manifest was interrupted: the stage resumes inside it, and readers refuse it.
Knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import write_atomically
from data_catalog.storage.receipts import MANIFEST_NAME, Shard, damage_by_size


class ManifestError(ValueError):
    """An output that is missing, unfinished or damaged; the message says what to run."""

    exit_code = 2


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
        return ensure_local(self.folder / name)


def content_digest(shards: Iterable[Shard]) -> str:
    """The digest of an output: that of its shards, in order."""
    return hashlib.sha256(
        "\n".join(f"{shard.name} {shard.digest}" for shard in shards).encode()
    ).hexdigest()


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest into its folder: the last thing a stage does."""
    write_atomically(
        manifest.folder / MANIFEST_NAME,
        manifest.model_dump_json(indent=2, exclude={"folder"}) + "\n",
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where the stage did not finish. Raises ManifestError where
    a file that it names is gone or of another size."""
    manifest = read_manifest_alone(folder)
    if manifest is None:
        return None
    for shard in manifest.shards:
        if problem := damage_by_size(folder, shard):
            raise ManifestError(
                f"{folder}: {problem}; `tld catalog verify … --repair` or the next `tld run` makes "
                "its shard again, "
                f"`tld {manifest.stage} … --force` all of them"
            )
    return manifest


def read_manifest_alone(folder: Path) -> Manifest | None:
    """The manifest of a folder, whatever became of its files. Raises ManifestError where it is
    unreadable."""
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate(
            {**json.loads(path.read_text(encoding="utf-8")), "folder": folder}
        )
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        raise ManifestError(
            f"{path} is damaged ({str(error).splitlines()[0]}); rerun with --force"
        ) from error
