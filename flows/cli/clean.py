"""`tld clean`: what no resumed run uses goes to the trash of the workspace, comes back from there,
or goes for good."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.maintenance.cleanup import UnneededFile


def clean(
    config: Config,
    *overrides: Overrides,
    other_settings: Annotated[
        bool,
        Parameter(
            negative="",
            help="Also outputs that this run does not use: downloads, encodings, models and reports of all other "
            "runs in this workspace, which may have taken days. Kept are models that have an alias "
            "in MLflow, "
            "as the champion has, with what they were made from.",
        ),
    ] = False,
    keep: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="With --other-settings: another run to keep, as typed after `tld run`, in quotes; several "
            "are allowed.",
        ),
    ] = (),
    yes: Annotated[
        bool,
        Parameter(
            negative="", help="Move it to the trash. Without this nothing is moved or deleted."
        ),
    ] = False,
    undo: Annotated[
        bool, Parameter(negative="", help="Put back what was moved to the trash last.")
    ] = False,
    empty_trash: Annotated[
        bool,
        Parameter(
            negative="",
            help="Delete the trash for good. Where root is in object storage, which has no trash: with --yes, delete "
            "what is listed for good.",
        ),
    ] = False,
) -> None:
    """Make room in a workspace. Without options: only what can be lost at no cost.

    That is: checkpoints of finished trainings, of whatever settings (they are needed again only
    where the model file is damaged later), and files that a killed process left half written.
    Interrupted work from which a run could go on stays. What goes is moved to the folder `trash` of
    the workspace: --undo brings it back, and --empty-trash --yes makes the room.
    """
    from data_catalog.storage.object_store import is_url

    configs = [load(config, overrides), *_runs_to_keep(keep)]
    root = configs[0].folder
    if elsewhere := {
        str(other.folder) for other in configs if other.folder.resolve() != root.resolve()
    }:
        raise UserError(f"--keep: {', '.join(elsewhere)} is another workspace than {root}")
    if undo and (yes or empty_trash or other_settings):
        raise UserError("--undo stands alone: it puts back what was moved last")
    again = f"tld clean {quote_overrides(config, overrides)} "
    stored_away = is_url(configs[0].root)
    if undo:
        _undo(root)
    elif empty_trash and not stored_away:
        _empty_trash(root, yes, again)
    elif yes and stored_away and not empty_trash:
        raise UserError(
            f"{configs[0].root} is in object storage, which has no trash: --yes --empty-trash "
            "deletes for good"
        )
    else:
        again += "--other-settings " if other_settings else ""
        again += "".join(f"--keep {shlex.quote(text)} " for text in keep)
        _clean(configs, other_settings, yes, again)


def _clean(configs: Sequence[RunConfig], others: bool, yes: bool, again: str) -> None:
    """Show what can go, and move it to the trash, or delete it where there is none."""
    from data_catalog.storage.object_store import is_url
    from pipeline.maintenance.cleanup import find_unneeded, remove
    from pipeline.maintenance.trash import move_to_trash

    settings = configs[0]
    client = _registry(settings) if others else None
    champions = _champions(client, settings) if client else frozenset()
    waste = find_unneeded(configs, others, champions)
    if unknown := _models_of_another_mlflow(waste, client):
        console.print(
            f"models {', '.join(sorted(name[:12] for name in unknown))} are kept, with what they "
            "were made from: the "
            "MLflow at hand does not know their runs, so it cannot say whether one is the "
            "champion; set "
            "MLFLOW_TRACKING_URI to the one that recorded them\n"
        )
        waste = find_unneeded(configs, others, champions | unknown)
    if not waste:
        console.print(f"nothing to clean in {settings.folder}")
        return
    in_storage, kept, trash = is_url(settings.root), dict[Path, str](), None
    if yes and in_storage:
        kept = {item.path: "a process works in it" for item in waste if not remove(item, settings)}
    elif yes:
        trash, kept = move_to_trash(settings.folder, waste)
    for item in waste:
        console.print(_line(item, kept.get(item.path), settings.folder, client))
    megabytes = f"{sum(item.bytes for item in waste if item.path not in kept) / 1e6:,.1f} MB"
    if not yes and in_storage:
        console.print(f"\n{megabytes} would be deleted for good: {again}--yes --empty-trash")
    elif not yes:
        console.print(f"\n{megabytes} would go to the trash: {again}--yes")
    elif in_storage:
        console.print(f"\n{megabytes} freed")
    elif len(kept) < len(waste):
        short = again.partition("--")[0]
        console.print(
            f"\n{megabytes} moved to {trash}; this frees nothing yet\n"
            f"  back:      {short}--undo\n  for good:  {short}--empty-trash --yes"
        )


def _undo(root: Path) -> None:
    from pipeline.maintenance.trash import undo

    undone = undo(root)
    if not undone:
        raise UserError(f"--undo: nothing is in the trash of {root}")
    for path in undone.restored:
        console.print(f"back: {path}")
    if undone.in_the_way:
        places = ", ".join(map(str, undone.in_the_way))
        raise UserError(f"--undo: something new is at {places}; what was there stays in the trash")


def _empty_trash(root: Path, yes: bool, again: str) -> None:
    from pipeline.maintenance.trash import bytes_in_trash, empty_trash

    megabytes = f"{bytes_in_trash(root) / 1e6:,.1f} MB"
    if not yes:
        console.print(
            f"{megabytes} in the trash would be deleted for good: {again}--empty-trash --yes"
        )
        return
    empty_trash(root)
    console.print(f"{megabytes} freed")


def _runs_to_keep(keep: Sequence[str]) -> list[RunConfig]:
    commands = [shlex.split(text) or [""] for text in keep]
    return [load(Path(words[0]), words[1:]) for words in commands]


def _registry(settings: RunConfig) -> MlflowClient | None:
    """The MLflow that knows the models of a workspace; None where no run was recorded yet. Raises
    UserError or RecordUnusable where it cannot be opened."""
    from data_catalog.storage.workspace import Workspace
    from flows.tracking.store import client_to_read

    if (
        not os.environ.get("MLFLOW_TRACKING_URI")
        and not Workspace(settings.folder).mlflow_database.exists()
    ):
        return None
    return client_to_read(settings.folder)


def _champions(client: MlflowClient, settings: RunConfig) -> frozenset[str]:
    """Fingerprints of the models that have an alias. Raises UserError where MLflow does not say."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from flows.tracking.registry import named_models
    from flows.tracking.store import tracking_uri

    try:
        return named_models(client)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--other-settings: MLflow at {tracking_uri(settings.folder)} does not say which model "
            "is the champion, "
            f"so that no output is deleted ({why}); make it answer, or leave this option out"
        ) from error


def _models_of_another_mlflow(
    waste: Sequence[UnneededFile], client: MlflowClient | None
) -> frozenset[str]:
    """Fingerprints of models whose training was recorded, but not in this MLflow."""
    models = [item.manifest for item in waste if item.manifest and item.manifest.stage == "train"]
    return frozenset(
        model.fingerprint
        for model in models
        if model.made_by and not (client and _experiment(client, model.made_by))
    )


def _line(item: UnneededFile, reason: str | None, root: Path, client: MlflowClient | None) -> str:
    """One thing that can go: its size, its place, of a finished output who made it, when and in
    what time, and why it can go, or the reason why it stays."""
    about = ""
    if made := item.manifest:
        about = f"{_run_name(made, client)}, {made.made_at[:16]}, took {_duration(made.seconds)}: "
    why = f"kept: {reason}" if reason else item.why
    return f"{item.bytes / 1e6:9,.1f} MB  {item.path.relative_to(root)}  {about}{why}"


def _run_name(made: Manifest, client: MlflowClient | None) -> str:
    """Name of the run that made an output; manifests of earlier versions do not tell, but MLflow
    may."""
    known = _experiment(client, made.made_by) if client and made.made_by and not made.name else ""
    return made.name or known or "a run of unknown name"


def _experiment(client: MlflowClient, run_id: str) -> str:
    """Name of the experiment of a run, which is that of its config; "" where MLflow does not know
    the run."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_experiment(client.get_run(run_id).info.experiment_id).name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min"
        if minutes
        else f"{seconds:.0f} s"
    )
