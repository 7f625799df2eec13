"""Printing to the terminal, and reading the words of a command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status

from flows.terminal.escape import visible
from flows.terminal.first_sign import end_first_sign

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_OVERRIDE = re.compile(r"\w+(\.[\w-]+)*=")
_HOME = re.compile(r"^(--[a-z-]+=)(~[^/\s]*)(?=/|$)")


class Terminal(Console):
    """Standard output, or standard error, on which text from any source is safe to print.

    No text is markup and none controls the terminal, because a caption or a path may contain `[/b]`
    or an escape sequence.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(
            stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Escape everything that is shown: text, tables with the content of their cells, errors.
        From the first of it on, it is what shows that the command works."""
        end_first_sign()
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def status(self, *arguments: Any, **options: Any) -> Status:
        """A spinner, which ends the first one before it hides the cursor."""
        end_first_sign()
        return super().status(*arguments, **options)

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled: Rich would exit with 1, `main` does better."""
        raise


console = Terminal(soft_wrap=True)
errors = Terminal(stderr=True)


def say(text: str) -> None:
    """Print a line for people on standard error: a warning, an error, or progress."""
    errors.print(text, soft_wrap=True)


def print_data(text: str) -> None:
    """Print JSON or YAML on standard output, as it is."""
    end_first_sign()
    print(text)


def load(config: Path, overrides: Sequence[str]) -> RunConfig:
    """The settings of a run from its file and overrides. Raises ConfigError if they are invalid."""
    from pipeline.config.load import load_config

    return load_config(config, overrides)


def location_of(settings: RunConfig) -> str:
    """The workspace as messages name it: an absolute path, or a place in object storage."""
    from data_catalog.storage.object_store import is_url

    return settings.root if is_url(settings.root) else str(settings.folder.absolute())


def prompts_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that are prompts, and those that change a setting
    (section.key=value)."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    return [word for word in words if not _OVERRIDE.match(word)], overrides


def with_home(words: Sequence[str]) -> list[str]:
    """The words of a command line, with `~` expanded in words like `--out=~/x`: a shell expands `~`
    only at the start of a word."""
    home = os.path.expanduser  # pathlib raises an error if there is no such user
    return [_HOME.sub(lambda match: match[1] + home(match[2]), word) for word in words]


def quote_overrides(config: Path, overrides: Sequence[str]) -> str:
    """The config file and overrides of a run, quoted for use in a suggested command."""
    return shlex.join([str(config), *overrides])
