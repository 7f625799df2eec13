"""How much a command that runs stages prints: with --quiet less, with --verbose more."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass

_QUIETER = ("httpx", "httpcore", "prefect.events")  # a line for each request, at the level of INFO


@dataclass(slots=True)
class _Chosen:
    quiet: bool = False
    verbose: bool = False


_chosen = _Chosen()  # by the command of this process


def choose_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Print less, or more, from now on."""
    _chosen.quiet, _chosen.verbose = quiet, verbose
    if verbose:
        os.environ["TLD_TRACEBACK"] = "1"  # for helper processes


def is_quiet() -> bool:
    """Whether nothing but warnings, errors and the final summary is printed."""
    return _chosen.quiet


def show_library_logs() -> None:
    """With --verbose, print the logs of libraries. Prefect replaces all handlers when it is
    imported, so call this after that."""
    if _chosen.verbose:
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.addHandler(_StandardError())
        for name in _QUIETER:
            logging.getLogger(name).setLevel(logging.WARNING)


def traceback_to_show(error: BaseException) -> str:
    """With --verbose, the traceback of an error that is otherwise a sentence."""
    return "".join(traceback.format_exception(error)) if _chosen.verbose else ""


class _StandardError(logging.Handler):
    """Prints to whatever standard error is at the time: bars replace it to stay at the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s  %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        from data_catalog.redaction import redact_credentials
        from flows.terminal.escape import visible

        try:
            sys.stderr.write(visible(redact_credentials(self.format(record))) + "\n")
        except Exception:
            self.handleError(record)
