"""The command line of this process, for the records of what it makes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
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


def resuming_command() -> str:
    """The command that resumes this one: without --force, which would begin from scratch again. ""
    if it holds the secret of a URL."""
    words = ["tld", *_without_force(_typed)]
    command = shlex.join(words)
    return command if _typed and redact_credentials(command) == command else ""


def same_command() -> str:
    """What to run again to resume, in words."""
    forced = _without_force(_typed) != _typed
    return "the same command without --force" if forced else "the same command"


def typed_at() -> datetime | None:
    """When the command began; None if the process is no command of tld."""
    return _typed_at[0] if _typed and _typed_at else None


def _without_force(words: Sequence[str]) -> list[str]:
    """The words of a command without --force, which has a stage after it in `tld run`."""
    others, rest = list[str](), iter(words)
    for word in rest:
        if word == "--":
            return [*others, word, *rest]
        if word == _FORCE and words[0] == "run":
            next(rest, None)
        elif word != _FORCE and not word.startswith(f"{_FORCE}="):
            others.append(word)
    return others
