"""Manifests: the record of a finished stage, with its shards, settings and figures.

A manifest is written last, by rename, and checked on read. A folder without one was interrupted:
the stage resumes in it, and readers refuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import write_atomically
from data_catalog.storage.receipts import MANIFEST_NAME, Shard, damage_by_size


class ManifestError(ValueError):
    """An output is missing, unfinished or damaged. The message says what to run."""

    exit_code = 2


class Manifest(BaseModel):
    """The record of a finished stage: its output, its inputs and its run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    fingerprint: str
    digest: str
    """SHA-256 of the content. Outputs that depend on this one are stale when it changes."""
    rows: int
    shards: tuple[Shard, ...]
    figures: dict[str, Any]
    """Measurements of the whole output, such as counts by cause, errors and scores, as they are
    stored. Those of each stage have a model in data_catalog/figures.py."""
    settings: dict[str, Any]
    parents: dict[str, str]
    """Input stage -> digest of its output. The stage is followed by the name of its phase, as in
    "encode first", if the training of another phase mixes its pairs."""
    made_by: str
    """Id of the MLflow run that made it, or "" if there was none."""
    made_at: str
    seconds: float
    hardware: str = ""
    """The machine that it was made on."""
    name: str = ""
    """Name of the run that made it."""
    folder: Path

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Stage and digest of each parent."""
        return [(name.partition(" ")[0], digest) for name, digest in self.parents.items()]

    def file(self, name: str) -> Path:
        """The path of one of the files, which is fetched first if it is only in object storage."""
        return ensure_local(self.folder / name)


class StoredValues(BaseModel):
    """A part of a manifest or receipt. Names that it does not know are ignored, because another
    version may have written them. A value that is None is not stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    spread: ClassVar[str] = ""
    """The field whose own names are stored among the others, in its place, or ""."""

    @model_serializer(mode="wrap")
    def _as_stored(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stored: dict[str, Any] = {}
        for name, value in dump(self).items():
            if value is not None:
                stored |= value if name == self.spread else {name: value}
        return stored


class Figures(StoredValues):
    """Figures of a stage. The stage dumps them into its manifest or receipts; others read them with
    `of`."""

    @classmethod
    def of(cls, record: Manifest | Shard) -> Self:
        """The figures of a manifest or receipt. Raises ManifestError if they are not those of this
        kind."""
        try:
            return cls.model_validate(record.figures)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"figures.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            if isinstance(record, Manifest):
                raise ManifestError(
                    f"{record.folder / MANIFEST_NAME} is damaged ({problem}); make the output "
                    f"again with `tld {record.stage} … --force`"
                ) from error
            raise ManifestError(
                f"the receipt of shard {record.name} is damaged ({problem}); run its stage again "
                "with --force"
            ) from error


def content_digest(shards: Iterable[Shard]) -> str:
    """The digest of an output, computed from the digests of its shards in order."""
    return hashlib.sha256(
        "\n".join(f"{shard.name} {shard.digest}" for shard in shards).encode()
    ).hexdigest()


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest into its folder, as the last step of a stage."""
    write_atomically(
        manifest.folder / MANIFEST_NAME,
        manifest.model_dump_json(indent=2, exclude={"folder"}) + "\n",
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None if the stage did not finish. Raises ManifestError if a file
    that it names is missing or has another size."""
    manifest = read_manifest_alone(folder)
    if manifest is None:
        return None
    for shard in manifest.shards:
        if problem := damage_by_size(folder, shard):
            raise ManifestError(
                f"{folder}: {problem}; to make its shard again, use "
                "`tld catalog verify … --repair` or the next `tld run`; "
                f"to make all shards again, `tld {manifest.stage} … --force`"
            )
    return manifest


def read_manifest_alone(folder: Path) -> Manifest | None:
    """The manifest of a folder; the files that it names are not checked. Raises ManifestError if it
    is unreadable."""
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate(
            {**json.loads(path.read_text(encoding="utf-8")), "folder": folder}
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:  # not JSON, or not an object, or not a manifest
        raise ManifestError(
            f"{path} is damaged ({str(error).splitlines()[0]}); run the stage again with --force"
        ) from error
