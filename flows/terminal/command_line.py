"""The command line of this process, for the records of what it makes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from data_catalog.redaction import redact_credentials

_typed: list[str] = []


def remember_command(words: Sequence[str]) -> None:
    """Remember the words after `tld`."""
    _typed[:] = words


def typed_command() -> str:
    """The command as a user types it, without the secrets of URLs; "" if the process is no command
    of tld, as on a Prefect worker."""
    return redact_credentials(shlex.join(["tld", *_typed])) if _typed else ""
