"""SHA-256 digests of files and of settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class FileRecord(BaseModel):
    """Size and digest of a file when it was finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """SHA-256 of anything that can be written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_records(paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Size and digest of finished files, by name."""
    return {
        path.name: FileRecord(bytes=path.stat().st_size, sha256=file_digest(path)) for path in paths
    }
