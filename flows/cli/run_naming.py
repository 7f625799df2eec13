"""`--name` of `tld run`: the run becomes a config in its workspace, which any command takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.storage.workspace import Workspace
from flows.terminal.console import say
from flows.terminal.verbosity import is_quiet
from pipeline.config.command_line import typed_command

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

RunName = Annotated[
    str | None,
    Parameter(
        show_default=False,
        help="Name of this run beside the name of its config, for lists, for MLflow, and as CONFIG "
        "of any command: it stands for the config with its overrides. They are kept in the folder "
        "runs of the workspace.",
    ),
]


def check_name_of_run(name: str | None, settings: RunConfig) -> None:
    """Raise ConfigError if the run cannot have this name, such as that of another run."""
    from pipeline.config.named_runs import check_name

    if name is not None:
        check_name(name, settings)


def name_run(
    name: str | None, config: Path, overrides: Sequence[str], settings: RunConfig
) -> tuple[Path, Sequence[str]]:
    """Give the run its name. Returns the config and overrides to type for it from now on."""
    from pipeline.config.named_runs import config_of_run, write_named_run

    if name is None:
        return config, overrides
    is_new = write_named_run(config, overrides, settings, name, typed_command())
    if is_new and not is_quiet():
        say(f"the config of {name}: {Workspace(settings.folder).runs / name}.yaml")
    return config_of_run(settings.folder, name), ()
