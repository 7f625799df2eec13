"""The command line of this process, for the records of what it makes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from data_catalog.redaction import redact_credentials

_typed: list[str] = []
_typed_at: list[datetime] = []  # at most one


def remember_command(words: Sequence[str]) -> None:
    """Remember the words after `tld`, and that they were typed now."""
    _typed[:], _typed_at[:] = words, [datetime.now(UTC)]


def typed_words() -> tuple[str, ...]:
    """The words after `tld`; none if the process is no command of tld."""
    return tuple(_typed)


def typed_command() -> str:
    """The command as a user types it, without the secrets of URLs; "" if the process is no command
    of tld, as on a Prefect worker."""
    return redact_credentials(shlex.join(["tld", *_typed])) if _typed else ""


def typed_at() -> datetime | None:
    """When the command began; None if the process is no command of tld."""
    return _typed_at[0] if _typed and _typed_at else None
