"""The command line: all commands, and how each ends. Commands import what is slow (Prefect, MLflow,
torch) inside."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group

from flows.cli import groups
from flows.cli.bench import bench
from flows.cli.catalog import catalog
from flows.cli.clean import clean
from flows.cli.compare import compare
from flows.cli.config import show_config
from flows.cli.convert_checkpoint import export_checkpoint, import_checkpoint
from flows.cli.deploy import deploy
from flows.cli.edit import edit
from flows.cli.export import export
from flows.cli.interpolate import interpolate
from flows.cli.panorama import panorama
from flows.cli.promote import promote
from flows.cli.sample import sample
from flows.cli.serve import serve
from flows.cli.stages import download, encode, evaluate, run, train
from flows.cli.status import status
from flows.cli.sweep import sweep
from flows.cli.ui import ui
from flows.terminal.console import Terminal, errors, say, with_home
from flows.terminal.errors import prefect_is_lost
from flows.terminal.streams import abandon_output, fit_streams, output_is_closed
from pipeline.compute.resource_limits import raise_descriptor_limit

app = App(
    name="tld",
    help="From a list of image URLs to a text-to-image model.\n\n"
    "Start with: tld run conf/tiny.yaml. It draws, downloads and encodes a small data set, trains "
    "on it and "
    "shows samples. Each stage can be rerun alone; what is fresh is not computed again. "
    "A run that was stopped goes on with the same command.",
    version_flags=[],
    console=Terminal(),
    error_console=errors,
    suppress_keyboard_interrupt=False,
)
_COMMANDS: dict[Group, tuple[Callable[..., Any], ...]] = {
    groups.MAKE: (run, download, encode, train, evaluate),
    groups.DRAW: (sample, interpolate, edit, panorama, serve),
    groups.JUDGE: (compare, sweep, bench),
    groups.SHARE: (promote, export, import_checkpoint, export_checkpoint),
    groups.LOOK_AFTER: (status, clean, deploy, ui),
}
for _group, _commands in _COMMANDS.items():
    for _place, _command in enumerate(_commands):
        app.command(_command, group=_group, sort_key=_place)
app.command(show_config, name="config", group=groups.LOOK_AFTER)
catalog.group = (groups.LOOK_AFTER,)
app.command(catalog)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command of the command line, or of these words.

    Exits with 0 when done, 2 for the user's mistake, 1 where a stage failed, 128 + signal when
    stopped by Ctrl-C or SIGTERM, or when whoever read the output has left.
    """
    signal.signal(signal.SIGTERM, _stop)
    raise_descriptor_limit()
    fit_streams()
    logging.raiseExceptions = False  # a log that no server takes is no news to a user
    try:
        app(
            with_home(sys.argv[1:] if words is None else words),
            exit_on_error=False,
            print_error=True,
        )
        if sys.stdout:
            sys.stdout.flush()
    except CycloptsError:
        code = 2
    except KeyboardInterrupt as stopped:
        say("\ntld: stopped; the same command goes on from here")
        # What is kept is on disk and our processes have ended: wait for no library's threads.
        os._exit(128 + (signal.SIGTERM if isinstance(stopped, _Terminated) else signal.SIGINT))
    except Exception as error:
        # A reader that left early, as `head` does, is no error to explain.
        code = 128 + signal.SIGPIPE if output_is_closed(error) else _explain(error)
        abandon_output()
        if code == 1 and os.environ.get("PREFECT_API_URL") and prefect_is_lost(error):
            os._exit(code)  # Prefect's client would wait for its server, for minutes
    else:
        code = 0
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _stop(_signal: int, _frame: object) -> None:
    raise _Terminated


def _explain(error: Exception) -> int:
    """Print what a person needs of an error; the exit code.

    An error class that is meant for users has an `exit_code`: 2 for a mistake of theirs, 1 for a
    stage that failed.
    """
    from data_catalog.redaction import redact_credentials
    from flows.terminal.errors import external_cause, unusable_path

    def print_error(what: object) -> None:
        say(redact_credentials(f"tld: {what}"))

    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        print_error(error)
        return code
    if os.environ.get("TLD_TRACEBACK"):
        raise error
    if cause := external_cause(error):
        print_error(cause)
        return 1
    if mistake := unusable_path(error):
        print_error(mistake)
        return 2
    print_error(f"unexpected {type(error).__name__}: {error}\n(set TLD_TRACEBACK=1 to see where)")
    return 1
