"""The command line of this process, for the records of what it makes."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from data_catalog.redaction import redact_credentials

_FORCE = "--force"
_typed: list[str] = []
_typed_at: list[datetime] = []  # at most one


def remember_command(words: Sequence[str]) -> None:
    """Remember the words after `tld`, and that they were typed now."""
    _typed[:], _typed_at[:] = words, [datetime.now(UTC)]


def typed_command() -> str:
    """The command as a user types it, without the secrets of URLs; "" if the process is no command
    of tld, as on a Prefect worker."""
    return redact_credentials(shlex.join(["tld", *_typed])) if _typed else ""


def resuming_command(begun: Collection[str] = ()) -> str:
    """The command that resumes this one: without --force for the stages that have begun, which
    would begin from scratch again. "" if it holds the secret of a URL."""
    words = ["tld", *_without_force(_typed, begun)]
    command = shlex.join(words)
    return command if _typed and redact_credentials(command) == command else ""


def same_command() -> str:
    """What to run again to resume, in words."""
    if any(word.partition("=")[0] == _FORCE for word in _typed[: _end_of_options(_typed)]):
        return "the same command, without --force for stages that had begun,"
    return "the same command"


def typed_at() -> datetime | None:
    """When the command began; None if the process is no command of tld."""
    return _typed_at[0] if _typed and _typed_at else None


def _without_force(words: Sequence[str], begun: Collection[str]) -> list[str]:
    """The words of a command without --force for stages that have begun. In `tld run` a stage
    follows it; in `tld train` it is of this one."""
    end = _end_of_options(words)
    others, rest = list[str](), iter(words[:end])
    for word in rest:
        option, _, stage = word.partition("=")
        if option != _FORCE:
            others.append(word)
            continue
        typed = [word]
        if words[0] != "run":
            stage = words[0]
        elif not stage:
            stage = next(rest, "")
            typed.append(stage)
        if stage not in begun:
            others += typed
    return [*others, *words[end:]]


def _end_of_options(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)
