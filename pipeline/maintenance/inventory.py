"""Inventory of a workspace: every output of every stage, its state, parents, scores and size."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_catalog.figures import ModelFigures, ReportFigures
from data_catalog.scores import is_part, whole_scores
from data_catalog.storage.cached_files import away_bytes
from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest
from data_catalog.storage.workspace import MODEL_STAGES, Workspace
from pipeline.stages.dag import STAGES


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One output folder."""

    stage: str
    folder: Path
    state: Literal["finished", "interrupted", "damaged", "unreadable"]
    manifest: Manifest | None  # of a finished output
    bytes: int  # of all its files, including files shared with other outputs by hard links


def stored(root: Path) -> list[StoredOutput]:
    """Every output, in the order of the stages and then of time."""
    workspace = Workspace(root)
    outputs = []
    for stage in STAGES:
        folders = [path for path in workspace.outputs(stage).glob("*") if path.is_dir()]
        in_stage = [_stored(stage, folder) for folder in folders]
        outputs += sorted(
            in_stage, key=lambda output: output.manifest.made_at if output.manifest else "~"
        )
    return outputs


def parents_of(
    output: StoredOutput, among: Iterable[StoredOutput]
) -> dict[str, StoredOutput | None]:
    """Parent -> its output, or None if that no longer exists."""
    if not output.manifest:
        return {}
    by_digest = {(other.stage, other.manifest.digest): other for other in among if other.manifest}
    inputs = zip(output.manifest.parents, output.manifest.inputs, strict=True)
    return {name: by_digest.get(key) for name, key in inputs}


def place(folder: Path) -> str:
    """The folder of an output within its workspace."""
    return f"{folder.parent.name}/{folder.name}"


def scores_of(output: Manifest) -> dict[str, float]:
    """The main scores of a report, or of a model those that are computed while it trains."""
    try:
        if output.stage == "evaluate":
            scores = ReportFigures.of(output).scores
            return {
                score.name: scores[score.name]
                for score in whole_scores(scores)
                if score.is_printed and score.of_model
            }
        if output.stage in MODEL_STAGES:
            losses = ModelFigures.of(output).losses
            return {name: loss for name, loss in losses.items() if not is_part(name)}
    except ManifestError:  # written by a version whose figures are of another form
        pass
    return {}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a folder, those that are only in object storage and those that are
    shared with other folders by hard links included."""
    return sum(status.st_size for status in _files(folder)) + away_bytes(folder)


def freed_by(paths: Sequence[Path]) -> list[int]:
    """Bytes that each path frees if all are deleted. A file with several hard links counts at the
    last of them, and only if no other path links to it."""
    links = Counter[tuple[int, int]]()
    freed = []
    for path in paths:
        size = away_bytes(path)
        for status in _files(path):
            inode = (status.st_dev, status.st_ino)
            links[inode] += 1
            size += status.st_size if links[inode] == status.st_nlink else 0
        freed.append(size)
    return freed


def _stored(stage: str, folder: Path) -> StoredOutput:
    size = folder_bytes(folder)
    try:
        manifest = read_manifest(folder)
    except ManifestError:
        return StoredOutput(stage, folder, "damaged", None, size)
    except PermissionError:  # this output belongs to another user
        return StoredOutput(stage, folder, "unreadable", None, size)
    return StoredOutput(stage, folder, "finished" if manifest else "interrupted", manifest, size)


def _files(path: Path) -> Iterator[os.stat_result]:
    """Every file below a folder, or the file itself."""
    below = path.rglob("*") if path.is_dir() else [path]
    return (file.lstat() for file in below if file.is_file() and not file.is_symlink())
