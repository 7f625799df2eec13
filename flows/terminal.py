"""What all commands share: reading a run, talking to the user, a Prefect server to run flows with."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

if TYPE_CHECKING:
    from pipeline.config import RunConfig

Config = Annotated[Path, Parameter(help="YAML file that describes the run, like conf/tiny.yaml.")]
_OVERRIDE = re.compile(r"\w+(\.\w+)*=")
console = Console(highlight=False, soft_wrap=True)


class UserMistake(ValueError):
    """Something to be done differently; the message says how."""

    exit_code = 2


def load(config: Path, overrides: Sequence[str]) -> RunConfig:
    """A run from its file and overrides. Raises ConfigError."""
    from pipeline.config import load_config

    return load_config(config, overrides)


def prompts_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line that are prompts, and those that change a setting, section.key=value."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    return [word for word in words if not _OVERRIDE.match(word)], overrides


def joined(overrides: Sequence[str]) -> str:
    """Overrides as they are typed again in a suggested command."""
    return "".join(f"{shlex.quote(override)} " for override in overrides)


@contextlib.contextmanager
def with_prefect(settings: RunConfig) -> Iterator[None]:
    """A Prefect server for the length of the block; its start takes seconds, so say what is awaited."""
    from data_catalog.workspace import Workspace
    from flows.prefect_server import prefect_server

    with contextlib.ExitStack() as stack:
        with Console(stderr=True).status("starting Prefect and MLflow …"):
            stack.enter_context(prefect_server(Workspace(settings.folder).prefect_home))
        yield
