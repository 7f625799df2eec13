"""`tld clean`: deletion of files that no resumed run needs, by way of a trash folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.clean_models import (
    models_of_another_mlflow,
    models_with_alias,
    registry_of,
    run_name,
)
from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, location_of, quote_overrides
from flows.terminal.duration import duration
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipeline.config.run import RunConfig
    from pipeline.maintenance.cleanup import UnneededFile

_OtherSettings = Annotated[
    bool,
    Parameter(
        negative="",
        help="Also list outputs that this run does not use: downloads, encodings, models and "
        "reports of all other runs in this workspace, which may have taken days. Models with an "
        "alias in MLflow, such as the champion, and the outputs they were made from are kept.",
    ),
]
_Keep = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        show_default=False,
        help="With --other-settings: another run to keep, as typed after tld run, in quotes; "
        "repeat the option for several runs.",
    ),
]
_Yes = Annotated[
    bool,
    Parameter(
        negative="",
        help="Move the listed files to the trash. Without it nothing is moved or deleted.",
    ),
]
_Undo = Annotated[
    bool, Parameter(negative="", help="Move the files of the last --yes back from the trash.")
]
_EmptyTrash = Annotated[
    bool,
    Parameter(
        negative="",
        help="With --yes: delete the trash for good. Object storage has no trash: if root is "
        "there, the listed files are deleted for good.",
    ),
]


def clean(
    config: Config,
    *overrides: Overrides,
    other_settings: _OtherSettings = False,
    keep: _Keep = (),
    yes: _Yes = False,
    undo: _Undo = False,
    empty_trash: _EmptyTrash = False,
) -> None:
    """Free disk space in a workspace: list files that this run does not need, move them to the
    trash (--yes), and delete the trash (--empty-trash --yes).

    By default only files that no model needs are listed: partial files of killed processes, and
    checkpoints of finished trainings with any settings. Without its checkpoints a training can no
    longer be made longer or continued, and begins anew if its model file is damaged. Interrupted
    work that a run can resume from is kept. The trash is the folder trash of the workspace; --undo
    moves its files back.
    """
    from data_catalog.storage.object_store import is_url

    configs = [load(config, overrides), *_runs_to_keep(keep)]
    root = configs[0].folder
    if elsewhere := {
        location_of(other) for other in configs if other.folder.resolve() != root.resolve()
    }:
        raise UserError(
            f"--keep: {', '.join(elsewhere)} is another workspace than {location_of(configs[0])}"
        )
    if undo and (yes or empty_trash or other_settings):
        raise UserError("--undo goes with no other option: it restores what was moved last")
    command = f"tld clean {quote_overrides(config, overrides)} "
    in_storage = is_url(configs[0].root)
    if undo:
        _undo(root)
    elif empty_trash and not in_storage:
        _empty_trash(root, command, yes=yes)
    elif yes and in_storage and not empty_trash:
        raise UserError(
            f"{configs[0].root} is in object storage, which has no trash: --yes --empty-trash "
            "deletes for good"
        )
    else:
        command += "--other-settings " if other_settings else ""
        command += "".join(f"--keep {shlex.quote(text)} " for text in keep)
        _clean(configs, command, others=other_settings, yes=yes)


def _clean(configs: Sequence[RunConfig], command: str, *, others: bool, yes: bool) -> None:
    """List the files, and move them to the trash, or delete them where there is none."""
    from data_catalog.storage.object_store import is_url
    from pipeline.maintenance.cleanup import remove
    from pipeline.maintenance.trash import move_to_trash

    settings = configs[0]
    client = registry_of(settings) if others else None
    waste = _unneeded(configs, client, others=others)
    if not waste:
        console.print(f"nothing to clean in {location_of(settings)}")
        return
    in_storage, in_use, trash = is_url(settings.root), dict[Path, str](), None
    if yes and in_storage:
        in_use = {
            item.path: "a process works in it" for item in waste if not remove(item, settings)
        }
    elif yes:
        trash, in_use = move_to_trash(settings.folder, waste)
    for item in waste:
        console.print(_line(item, in_use.get(item.path), settings.folder, client))
    megabytes = f"{sum(item.bytes for item in waste if item.path not in in_use) / 1e6:,.1f} MB"
    if not yes and in_storage:
        console.print(f"\n{megabytes} would be deleted for good: {command}--yes --empty-trash")
    elif not yes:
        console.print(f"\n{megabytes} would go to the trash: {command}--yes")
    elif in_storage:
        console.print(f"\n{megabytes} freed")
    elif len(in_use) < len(waste):
        short = command.partition("--")[0]
        console.print(
            f"\n{megabytes} moved to {trash and trash.absolute()}; this frees nothing yet\n"
            f"  restore:   {short}--undo\n  for good:  {short}--empty-trash --yes"
        )


def _unneeded(
    configs: Sequence[RunConfig], client: MlflowClient | None, *, others: bool
) -> Sequence[UnneededFile]:
    """What can go. Models with an alias are kept, and models whose runs this MLflow does not know,
    because they may have one elsewhere."""
    from pipeline.maintenance.cleanup import find_unneeded

    champions = models_with_alias(client, configs[0]) if client else frozenset()
    waste = find_unneeded(configs, champions, others=others)
    if unknown := models_of_another_mlflow(waste, client):
        console.print(
            f"models {', '.join(sorted(name[:12] for name in unknown))} and the outputs they were "
            "made from are kept: the MLflow at hand does not know their runs, so it cannot say "
            "whether one is the champion; set MLFLOW_TRACKING_URI to the MLflow that recorded "
            "them\n"
        )
        waste = find_unneeded(configs, champions | unknown, others=others)
    return waste


def _undo(root: Path) -> None:
    from pipeline.maintenance.trash import undo

    undone = undo(root)
    if not undone:
        raise UserError(f"--undo: nothing is in the trash of {root.absolute()}")
    for path in undone.restored:
        console.print(f"restored: {path}")
    if undone.in_the_way:
        paths = ", ".join(map(str, undone.in_the_way))
        raise UserError(
            f"--undo: new files are at {paths}; what was there before stays in the trash"
        )


def _empty_trash(root: Path, command: str, *, yes: bool) -> None:
    from pipeline.maintenance.trash import bytes_in_trash, empty_trash

    megabytes = f"{bytes_in_trash(root) / 1e6:,.1f} MB"
    if not yes:
        console.print(
            f"{megabytes} in the trash would be deleted for good: {command}--empty-trash --yes"
        )
        return
    empty_trash(root)
    console.print(f"{megabytes} freed")


def _runs_to_keep(keep: Sequence[str]) -> list[RunConfig]:
    commands = [shlex.split(text) or [""] for text in keep]
    return [load(Path(words[0]), words[1:]) for words in commands]


def _line(item: UnneededFile, in_use: str | None, root: Path, client: MlflowClient | None) -> str:
    """One file or folder: its size and path; for a finished output the run that produced it, when
    and in what time; why it can go, or why it stays."""
    about = ""
    if output := item.manifest:
        took = duration(output.seconds)
        about = f"{run_name(output, client)}, {output.made_at[:16]}, took {took}: "
    why = f"kept: {in_use}" if in_use else item.why
    return f"{item.bytes / 1e6:9,.1f} MB  {item.path.relative_to(root)}  {about}{why}"
