"""All that lies in a workspace: every output of every stage, what it was made from, what it weighs; and how what no run
needs any more goes. Knows nothing of what a stage does."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_catalog.manifest import MANIFEST_NAME, Manifest, ManifestError, read_manifest
from data_catalog.stored import away_bytes, discard, marked
from data_catalog.workspace import Workspace
from pipeline.config import RunConfig
from pipeline.keeper import HeldElsewhere
from pipeline.locks import LOCK_NAME, StillHeld, held
from pipeline.object_root import alone_in_storage
from pipeline.stage import STAGES, survey

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Stored:
    """One output folder."""

    stage: str
    folder: Path
    state: Literal["finished", "interrupted", "damaged"]
    manifest: Manifest | None  # where it is finished
    bytes: int  # of all its files; some may be linked from other outputs too


@dataclass(frozen=True, slots=True)
class Waste:
    """What no run that is kept needs."""

    path: Path
    why: str
    bytes: int  # that become free, where all waste goes
    output: Path  # the output folder that it is, or lies in: whose lock guards it


def stored(root: Path) -> list[Stored]:
    """Every output, in order of the stages and of time."""
    workspace = Workspace(root)
    found = []
    for stage in STAGES:
        folders = [path for path in workspace.outputs(stage).glob("*") if path.is_dir()]
        outputs = [_stored(stage, folder) for folder in folders]
        found += sorted(outputs, key=lambda output: output.manifest.made_at if output.manifest else "~")
    return found


def parents_of(output: Stored, among: Iterable[Stored]) -> dict[str, Stored | None]:
    """Stage -> the output that it was made from; None where that is gone."""
    told = output.manifest.parents if output.manifest else {}
    by_digest = {(other.stage, other.manifest.digest): other for other in among if other.manifest}
    return {stage: by_digest.get((stage, digest)) for stage, digest in told.items()}


def find_waste(configs: Sequence[RunConfig]) -> list[Waste]:
    """What none of these runs, which share a workspace, needs: outputs that are not theirs, checkpoints of trainings
    that are finished, sweeps of models that go. While a stage of theirs is not finished, nobody can say which outputs
    of the stages after it are theirs: all of these are kept."""
    root = configs[0].folder
    statuses = [status for config in configs for status in survey(config).values()]
    kept = {status.folder.resolve() for status in statuses if status.folder}  # each run spells its root in its own way
    unsure = {status.stage for status in statuses if status.folder is None}
    outputs = stored(root)
    unwanted = [output for output in outputs if output.folder.resolve() not in kept and output.stage not in unsure]
    done = [o.folder / CHECKPOINTS for o in outputs if o.folder.resolve() in kept and o.stage == "train" and o.manifest]
    models = [output.manifest for output in unwanted if output.stage == "train" and output.manifest]
    sweeps = [Workspace(root).sweep(model.fingerprint) for model in models]
    told = [
        *((output.folder, f"{output.state}, of other settings", output.folder) for output in unwanted),
        *((path, "of a training that is finished", path.parent) for path in done if path.is_dir()),
        *((path, "of a model that goes", path) for path in sweeps if path.is_dir()),
    ]
    freed = _freed([path for path, _, _ in told])
    return [Waste(path, why, size, output) for (path, why, output), size in zip(told, freed, strict=True)]


def remove(waste: Waste, config: RunConfig) -> bool:
    """Delete it, here and in object storage where it lies there, or return False where a process works in its output.
    An output loses its manifest first: a kill on the way leaves one that is interrupted, not a damaged one."""
    try:
        with held(waste.output / LOCK_NAME, patience_s=0), alone_in_storage(config, waste.output):
            if waste.path == waste.output:
                discard([waste.path / MANIFEST_NAME])
            discard(marked(waste.path))
            _delete(waste.path)
    except (StillHeld, HeldElsewhere):
        return False
    return True


def _delete(folder: Path) -> None:
    """The lock last, so that who comes meanwhile waits, and finds nothing of what goes."""
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()
    (folder / LOCK_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # who waited has begun there anew
        folder.rmdir()


def _stored(stage: str, folder: Path) -> Stored:
    size = sum(status.st_size for status in _files(folder)) + away_bytes(folder)
    try:
        manifest = read_manifest(folder)
    except ManifestError:
        return Stored(stage, folder, "damaged", None, size)
    return Stored(stage, folder, "finished" if manifest else "interrupted", manifest, size)


def _freed(paths: Sequence[Path]) -> list[int]:
    """Bytes that each gives back where all go: of a file that several link to, at the last of them, where no other
    path links to it."""
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


def _files(folder: Path) -> Iterator[os.stat_result]:
    return (path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
