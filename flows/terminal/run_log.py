"""The log of a run: a file in the workspace with every line that was shown, the logs of libraries,
and the traceback of a failure."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_catalog.redaction import redact_credentials
from flows.terminal.escape import visible
from flows.terminal.run_record import new_log, run_recorder

_failed: list[Path] = []  # at most one


@contextmanager
def run_log(root: Path) -> Iterator[None]:
    """Write the log for the length of the block. Prefect replaces all handlers when it is
    imported, so open it after that. Without a file, as on a full disk, the run goes on."""
    try:
        handler = _open(root)
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


def _open(root: Path) -> logging.FileHandler:
    """The log of the recorded run, or a new one. Raises OSError."""
    recorder = run_recorder()
    path = recorder.log if recorder else new_log(root)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    return handler


class _Redacting(logging.Formatter):
    """Formats a record without credentials, and with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(redact_credentials(super().format(record)))
