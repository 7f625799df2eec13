"""All that lies in a workspace: every output of every stage, what it was made from, what it weighs;
and what of it can go. Knows nothing of what a stage does."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_catalog.storage.cached_files import RECORDS_FOLDER, away_bytes, discard, iter_cached
from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.files import delete_folder, unfinished_files
from data_catalog.storage.lease import LeaseTaken
from data_catalog.storage.manifest import Manifest, ManifestError, read_manifest
from data_catalog.storage.receipts import MANIFEST_NAME
from data_catalog.storage.workspace import Workspace
from pipeline.config.run import RunConfig
from pipeline.stages.dag import STAGES
from pipeline.stages.freshness import settings_of_output, stage_statuses
from pipeline.stages.remote_workspace import alone_in_storage, sync_listing

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One output folder."""

    stage: str
    folder: Path
    state: Literal["finished", "interrupted", "damaged", "unreadable"]
    manifest: Manifest | None  # where it is finished
    bytes: int  # of all its files; some may be linked from other outputs too


@dataclass(frozen=True, slots=True)
class UnneededFile:
    """What can go."""

    path: Path
    why: str
    bytes: int  # that become free, where all waste is deleted
    output: Path  # the output folder that it is, or lies in: whose lock guards it
    manifest: Manifest | None = None  # of a finished output that would go whole


def stored(root: Path) -> list[StoredOutput]:
    """Every output, in order of the stages and of time."""
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
    """Stage -> the output that it was made from; None where that is gone."""
    parents = output.manifest.parents if output.manifest else {}
    by_digest = {(other.stage, other.manifest.digest): other for other in among if other.manifest}
    return {stage: by_digest.get((stage, digest)) for stage, digest in parents.items()}


def find_unneeded(
    configs: Sequence[RunConfig], others: bool = False, champions: Set[str] = frozenset()
) -> list[UnneededFile]:
    """What no resumed run uses, of whatever settings: checkpoints of finished trainings, and files
    whose writer was killed. With `others` also outputs of other settings than those of these runs,
    which share a workspace; but not the models of the fingerprints `champions`, what they were made
    from, and their reports."""
    sync_listing(configs[0])
    outputs = stored(configs[0].folder)
    unwanted = _of_other_settings(configs, outputs, champions) if others else []
    going = {file.path for file in unwanted}
    unneeded = [
        *_leftovers([output for output in outputs if output.folder not in going]),
        *unwanted,
    ]
    freed = freed_by([file.path for file in unneeded])
    return [
        UnneededFile(file.path, file.why, size, file.output, file.manifest)
        for file, size in zip(unneeded, freed, strict=True)
    ]


def _leftovers(outputs: Sequence[StoredOutput]) -> Iterator[UnneededFile]:
    """What can be deleted at the cost of minutes at most."""
    for output in outputs:
        checkpoints = output.folder / CHECKPOINTS
        if (
            output.stage == "train"
            and output.manifest
            and checkpoints.is_dir()
            and any(checkpoints.iterdir())
        ):
            yield UnneededFile(
                checkpoints, "checkpoints of a training that is finished", 0, output.folder
            )
        elif output.state != "unreadable":
            for path in _abandoned(output.folder):
                yield UnneededFile(path, "left by a process that was killed", 0, output.folder)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Files and folders that a killed process left half written, where none works there now."""
    yield from unfinished_files(folder)
    yield from unfinished_files(folder / CHECKPOINTS)
    yield from (path for path in folder.glob(".*") if path.is_dir() and path.name != RECORDS_FOLDER)


def _of_other_settings(
    configs: Sequence[RunConfig], outputs: Sequence[StoredOutput], champions: Set[str]
) -> list[UnneededFile]:
    """While a stage of these runs is not finished, nobody can say which outputs of the stages after
    it are theirs: all of these stay."""
    statuses = [status for config in configs for status in stage_statuses(config).values()]
    needed = {
        status.folder.resolve() for status in statuses if status.folder
    }  # each run spells its root in its own way
    unsure = {status.stage for status in statuses if status.folder is None}
    needed |= {output.folder.resolve() for output in _protected(outputs, champions)}
    unwanted = [
        output
        for output in outputs
        if output.folder.resolve() not in needed
        and output.stage not in unsure
        and output.state != "unreadable"
    ]
    mine = {
        stage: settings_of_output(STAGES[stage], configs[0])
        for stage in {output.stage for output in unwanted}
    }
    models = [output.manifest for output in unwanted if output.stage == "train" and output.manifest]
    sweeps = [Workspace(configs[0].folder).sweep(model.fingerprint) for model in models]
    return [
        *(
            UnneededFile(o.folder, _difference(o, mine[o.stage]), 0, o.folder, o.manifest)
            for o in unwanted
        ),
        *(
            UnneededFile(path, "sweep of a model that goes", 0, path)
            for path in sweeps
            if path.is_dir()
        ),
    ]


def _protected(outputs: Sequence[StoredOutput], champions: Set[str]) -> Iterator[StoredOutput]:
    """The models of these fingerprints, their reports, and all that they were made from."""
    models = {
        o.manifest.digest for o in outputs if o.manifest and o.manifest.fingerprint in champions
    }
    protected = {("train", digest) for digest in models}
    for output in reversed(outputs):  # a stage's outputs come after those of its parents
        if not output.manifest:
            continue
        parents = output.manifest.parents
        if (output.stage, output.manifest.digest) in protected:
            protected |= set(parents.items())
            yield output
        elif output.stage == "evaluate" and parents.get("train") in models:
            yield output


def _difference(output: StoredOutput, settings: Mapping[str, Any]) -> str:
    """How the settings of an output differ from those of this run."""
    if not output.manifest:
        return f"{output.state}: of other settings, whose run would go on from it"
    theirs, ours = dict(_leaves(output.manifest.settings)), dict(_leaves(settings))
    names = [
        name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)
    ]
    shown = [f"{name}={_value(theirs, name)} (here {_value(ours, name)})" for name in names]
    return (
        ", ".join(shown)
        or f"made from another output of {' and '.join(output.manifest.parents) or 'the same'}"
    )


def _value(settings: Mapping[str, Any], name: str) -> str:
    return str(settings[name])[:40] if name in settings else "its default"


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


def remove(file: UnneededFile, config: RunConfig) -> bool:
    """Delete it, here and in object storage where it lies there, or return False where a process
    works in its output. An output loses its manifest first: a kill on the way leaves one that is
    interrupted, not a damaged one."""
    try:
        with (
            file_lock(file.output / LOCK_NAME, timeout_s=0),
            alone_in_storage(config, file.output),
        ):
            if file.path == file.output:
                discard([file.path / MANIFEST_NAME])
            discard(iter_cached(file.path))
            _delete(file.path)
    except (LockTimeout, LeaseTaken):
        return False
    return True


def _delete(folder: Path) -> None:
    """The lock last, so that who comes meanwhile waits, and finds nothing of what goes."""
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    for path in folder.glob("*"):
        if path.is_dir():
            delete_folder(path)
        elif path.name != LOCK_NAME:
            path.unlink()
    (folder / LOCK_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # a link, or who waited has begun there anew
        folder.rmdir()


def _stored(stage: str, folder: Path) -> StoredOutput:
    size = sum(status.st_size for status in _files(folder)) + away_bytes(folder)
    try:
        manifest = read_manifest(folder)
    except ManifestError:
        return StoredOutput(stage, folder, "damaged", None, size)
    except PermissionError:  # of one of many; it is another user's
        return StoredOutput(stage, folder, "unreadable", None, size)
    return StoredOutput(stage, folder, "finished" if manifest else "interrupted", manifest, size)


def freed_by(paths: Sequence[Path]) -> list[int]:
    """Bytes that each gives back where all are deleted: of a file that several link to, at the last
    of them, where no other path links to it."""
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


def _files(path: Path) -> Iterator[os.stat_result]:
    """Every file below a folder, or the file itself."""
    below = path.rglob("*") if path.is_dir() else [path]
    return (file.lstat() for file in below if file.is_file() and not file.is_symlink())
