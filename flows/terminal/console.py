"""What all commands share: reading a run, the terminal, a Prefect server to run flows with."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from flows.terminal.escape import visible

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_OVERRIDE = re.compile(r"\w+(\.\w+)*=")
_HOME = re.compile(r"^(--[a-z-]+=)(~[^/\s]*)(?=/|$)")


class Terminal(Console):
    """Standard output, or standard error: shows text as it is, whoever wrote it.

    No text is markup, and none controls the terminal: a caption or a path may hold `[/b]` or an
    escape sequence.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(
            stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """All that is shown comes through here: text, tables and what is in their cells, errors."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1; `main` knows better. Called where the error is caught."""
        raise


console = Terminal(soft_wrap=True)
errors = Terminal(stderr=True)


def say(text: str) -> None:
    """A line on standard error, for people: warnings, errors, what is going on."""
    errors.print(text, soft_wrap=True)


def load(config: Path, overrides: Sequence[str]) -> RunConfig:
    """A run from its file and overrides. Raises ConfigError."""
    from pipeline.config.load import load_config

    return load_config(config, overrides)


def prompts_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line that are prompts, and those that change a setting,
    section.key=value."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    return [word for word in words if not _OVERRIDE.match(word)], overrides


def with_home(words: Sequence[str]) -> list[str]:
    """Words of a command line in which `--out=~/x` names the home folder: a shell expands `~` only
    at the start of a word."""
    home = os.path.expanduser  # pathlib raises an error where there is no such user
    return [_HOME.sub(lambda found: found[1] + home(found[2]), word) for word in words]


def quote_overrides(config: Path, overrides: Sequence[str]) -> str:
    """What describes a run, as it is typed again in a suggested command."""
    return shlex.join([str(config), *overrides])
