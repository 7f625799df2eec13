"""Cleanup of a workspace: finding files that no run needs, and deleting them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_catalog.model_files import CHECKPOINTS_FOLDER
from data_catalog.storage.cached_files import RECORDS_FOLDER, discard, iter_cached
from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.files import delete_folder, unfinished_files
from data_catalog.storage.lease import LeaseTaken
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import MANIFEST_NAME
from data_catalog.storage.workspace import MODEL_STAGES, Workspace
from pipeline.config.run import RunConfig
from pipeline.maintenance.inventory import StoredOutput, freed_by, stored
from pipeline.stages.freshness import StageStatus, run_statuses, stage_statuses
from pipeline.stages.remote_workspace import alone_in_storage, sync_listing
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.setting_changes import recorded_settings, setting_changes

_SHOWN_CHARS = 40  # of a value
_OF_FINISHED = "checkpoints of a finished training, which cannot be made longer without them"


@dataclass(frozen=True, slots=True)
class UnneededFile:
    """A file or folder that can be deleted."""

    path: Path
    why: str
    bytes: int  # freed if everything that was found is deleted
    output: Path  # the output folder that it is or is in, whose lock guards it
    manifest: Manifest | None = None  # of a finished output that would be deleted as a whole


def find_unneeded(
    configs: Sequence[RunConfig], champions: Set[str] = frozenset(), *, others: bool = False
) -> list[UnneededFile]:
    """Find files that no run needs: checkpoints of finished trainings, and files of killed
    processes.

    With `others`, also outputs whose settings differ from those of these runs, which share a
    workspace; models with a fingerprint in `champions`, their parents and their reports are kept.
    """
    sync_listing(configs[0])
    outputs = stored(configs[0].folder)
    beginnings = _beginnings(configs)
    outputs = [output for output in outputs if output.folder.resolve() not in beginnings]
    unwanted = _of_other_settings(configs, outputs, champions) if others else []
    deleted = {file.path for file in unwanted}
    unneeded = [
        *_leftovers([output for output in outputs if output.folder not in deleted]),
        *unwanted,
    ]
    freed = freed_by([file.path for file in unneeded])
    return [
        UnneededFile(file.path, file.why, size, file.output, file.manifest)
        for file, size in zip(unneeded, freed, strict=True)
    ]


def _beginnings(configs: Sequence[RunConfig]) -> set[Path]:
    """The folders of the models from which the trainings of these runs begin."""
    trainings = [phase.train for config in configs for phase in config.chain]
    paths = (p for train in trainings for p in (train.continue_from, train.init_from) if p)
    resolved = {path.expanduser().resolve() for path in paths}
    # A file is in the folder of a model, or in its folder of checkpoints.
    return resolved | {folder for path in resolved for folder in tuple(path.parents)[:2]}


def _leftovers(outputs: Sequence[StoredOutput]) -> Iterator[UnneededFile]:
    """Files that no finished output and no interrupted work needs."""
    for output in outputs:
        checkpoints = output.folder / CHECKPOINTS_FOLDER
        if (
            output.stage in MODEL_STAGES
            and output.manifest
            and checkpoints.is_dir()
            and any(checkpoints.iterdir())
        ):
            yield UnneededFile(checkpoints, _OF_FINISHED, 0, output.folder)
        elif output.state != "unreadable":
            for path in _abandoned(output.folder):
                yield UnneededFile(path, "left by a killed process", 0, output.folder)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Unfinished files and folders of a killed process."""
    yield from unfinished_files(folder)
    yield from unfinished_files(folder / CHECKPOINTS_FOLDER)
    yield from (path for path in folder.glob(".*") if path.is_dir() and path.name != RECORDS_FOLDER)


def _of_other_settings(
    configs: Sequence[RunConfig], outputs: Sequence[StoredOutput], champions: Set[str]
) -> list[UnneededFile]:
    """Outputs of other settings, and sweeps of their models. While a stage of these runs is not
    finished, the outputs of later stages cannot be attributed to a run, so all of them stay."""
    inputs = [RunInputs(config) for config in configs]
    by_run = [run_statuses(run) for run in inputs]
    statuses = [status for of_run in by_run for status in of_run]
    statuses += [stage_statuses(other)["evaluate"] for run in inputs if (other := run.distilled)]
    # Resolved, because each run may spell its root differently.
    needed = {status.folder.resolve() for status in statuses if status.folder}
    undetermined = {status.stage for status in statuses if status.folder is None}
    chosen = champions | set[str]().union(*map(_models_of_phases_before, by_run))
    needed |= {output.folder.resolve() for output in _protected(outputs, chosen)}
    unwanted = [
        output
        for output in outputs
        if output.folder.resolve() not in needed
        and output.stage not in undetermined
        and output.state != "unreadable"
    ]
    models = [o.manifest for o in unwanted if o.stage in MODEL_STAGES and o.manifest]
    sweeps = [Workspace(configs[0].folder).sweep(model.fingerprint) for model in models]
    return [
        *(
            UnneededFile(o.folder, _difference(o, inputs[0]), 0, o.folder, o.manifest)
            for o in unwanted
        ),
        *(
            UnneededFile(path, "sweep of a deleted model", 0, path)
            for path in sweeps
            if path.is_dir()
        ),
    ]


def _models_of_phases_before(statuses: Sequence[StageStatus]) -> set[str]:
    """The fingerprints of the models of all phases of a run but the last. They may have reports
    too."""
    *before, _ = [status for status in statuses if status.stage == "train"]
    return {status.manifest.fingerprint for status in before if status.manifest}


def _protected(outputs: Sequence[StoredOutput], champions: Set[str]) -> Iterator[StoredOutput]:
    """The models with these fingerprints, their reports, and everything they were made from."""
    finished = [(o, (o.stage, o.manifest.digest), o.manifest) for o in outputs if o.manifest]
    models = {key for _, key, manifest in finished if manifest.fingerprint in champions}
    protected, parents = set[tuple[str, str]](), models
    while parents:
        protected |= parents
        made_from = [m.inputs for _, key, m in finished if key in parents]
        parents = {parent for items in made_from for parent in items} - protected
    for output, key, manifest in finished:
        of_model = output.stage == "evaluate" and not models.isdisjoint(manifest.inputs)
        if key in protected or of_model:
            yield output


def _difference(output: StoredOutput, inputs: RunInputs) -> str:
    """How the settings of an output differ from those of this run."""
    if output.stage not in inputs.stages:
        return f"this run has no stage {output.stage}"
    settings = inputs.settings(output.stage)
    if not output.manifest:
        return f"{output.state}, of a run with other settings, which could resume from it"
    theirs, ours = (
        recorded_settings(output.stage, one) for one in (output.manifest.settings, settings)
    )
    shown = [
        f"{change.name}={change.before[:_SHOWN_CHARS]} (here {change.now[:_SHOWN_CHARS]})"
        for change in setting_changes(theirs, ours)
    ]
    return (
        ", ".join(shown)
        or f"made from another output of {' and '.join(output.manifest.parents) or 'the same'}"
    )


def remove(file: UnneededFile, config: RunConfig) -> bool:
    """Delete a file locally and in object storage, or return False if a process works in its
    output. The manifest of an output is deleted first, so that a kill leaves the output interrupted
    and not damaged."""
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
    """Delete a folder, its lock last, so that another process waits until everything is deleted."""
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    for path in folder.glob("*"):
        if path.is_dir():
            delete_folder(path)
        elif path.name != LOCK_NAME:
            path.unlink()
    (folder / LOCK_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # it is a link, or a waiting process already uses it again
        folder.rmdir()
