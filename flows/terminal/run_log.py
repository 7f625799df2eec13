"""The log of a run: a file in the workspace with every line that was shown, the logs of libraries,
and the traceback of a failure."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from data_catalog.redaction import redact_credentials
from data_catalog.storage.workspace import Workspace
from flows.terminal.escape import visible

_KEEP = 20  # newest logs
_failed: list[Path] = []  # at most one


@contextmanager
def run_log(root: Path) -> Iterator[None]:
    """Write the log for the length of the block. Prefect replaces all handlers when it is
    imported, so open it after that. Without a file, as on a full disk, the run goes on."""
    try:
        handler = _open(Workspace(root).logs)
    except OSError:
        yield
        return
    loggers = [logging.getLogger(), logging.getLogger("tld")]
    loggers[1].setLevel(logging.INFO)
    loggers[1].propagate = False
    for logger in loggers:
        logger.addHandler(handler)
    log = logging.getLogger("tld.run")
    log.info("command: %s", shlex.join(["tld", *sys.argv[1:]]))
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            _failed[:] = [Path(handler.baseFilename)]
            log.error("failed", exc_info=error)
        else:
            log.info("stopped")
        raise
    else:
        log.info("finished")
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        loggers[1].propagate = True
        with suppress(OSError):  # the disk is full
            handler.close()


def log_of_failure() -> Path | None:
    """The log of the run that has just failed in this process."""
    return _failed.pop() if _failed else None


def _open(folder: Path) -> logging.FileHandler:
    """A new log, beside the newest of the others. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -_KEEP + 1]:
        old.unlink(missing_ok=True)
    name = f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{os.getpid()}.log"
    handler = logging.FileHandler(folder / name, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    return handler


class _Redacting(logging.Formatter):
    """Formats a record without credentials, and with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(redact_credentials(super().format(record)))
