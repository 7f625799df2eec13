"""The entry point of `tld`: all commands, and their exit codes. Each command imports slow libraries
(Prefect, MLflow, torch) inside its function."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group, MissingArgumentError

from flows.cli import groups
from flows.cli.bench import bench
from flows.cli.catalog import catalog
from flows.cli.clean import clean
from flows.cli.compare import compare
from flows.cli.config import show_config
from flows.cli.convert_checkpoint import export_checkpoint, import_checkpoint
from flows.cli.data import data
from flows.cli.deploy import deploy
from flows.cli.doctor import doctor
from flows.cli.download import download
from flows.cli.edit import edit
from flows.cli.export import export
from flows.cli.init import init
from flows.cli.interpolate import interpolate
from flows.cli.panorama import panorama
from flows.cli.promote import promote
from flows.cli.runs import runs
from flows.cli.sample import sample
from flows.cli.serve import serve
from flows.cli.stages import distill, encode, evaluate, run, train
from flows.cli.status import status
from flows.cli.stop import stop
from flows.cli.sweep import sweep
from flows.cli.ui import ui
from flows.cli.watch import watch
from flows.terminal.console import Terminal, errors, say, with_home
from flows.terminal.errors import prefect_is_lost
from flows.terminal.first_sign import first_sign
from flows.terminal.resuming import same_command
from flows.terminal.run_log import log_of_failure
from flows.terminal.streams import abandon_output, fit_streams, output_is_closed
from flows.terminal.verbosity import traceback_to_show
from pipeline.compute.resource_limits import raise_descriptor_limit
from pipeline.config.command_line import remember_command
from pipeline.config.distribution import tld_version


def mistake_text(error: CycloptsError) -> str:
    """What is wrong with the words of a command line, in the form of our own errors."""
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument and argument.index is not None:
        command = " ".join(error.command_chain or ())
        name = argument.name.lstrip("-").upper()
        meaning = (argument.parameter.help or "").removesuffix(".")
        return f"tld: {command} needs {name}: {meaning}\ntld {command} --help says more"
    return f"tld: {error}"


app = App(
    name="tld",
    help="Train a text-to-image model from images and captions.\n\n"
    "Start with: tld run tiny. It draws a small data set of shapes, downloads and "
    "encodes it, trains a model on it and samples images. At the end it prints the scores and the "
    "paths of the sample grid and the report. For data of your own: tld init PATH.\n\n"
    "Stages whose output is fresh are skipped, and each stage can be rerun alone. To resume a "
    "stopped run, repeat the command.",
    version=tld_version,
    console=Terminal(),
    error_console=errors,
    error_formatter=mistake_text,
    suppress_keyboard_interrupt=False,
)
_COMMANDS: dict[Group, tuple[Callable[..., Any], ...]] = {
    groups.TRAIN: (init, run, watch, stop, download, data, encode, train, evaluate, distill),
    groups.GENERATE: (sample, interpolate, edit, panorama, serve),
    groups.MEASURE: (compare, sweep, bench),
    groups.PUBLISH: (promote, export, import_checkpoint, export_checkpoint),
    groups.MANAGE: (status, runs, clean, deploy, ui, doctor),
}
for _group, _commands in _COMMANDS.items():
    for _position, _command in enumerate(_commands):
        app.command(first_sign()(_command), group=_group, sort_key=_position)
app.command(show_config, name="config", group=groups.MANAGE)
catalog.group = (groups.MANAGE,)
app.command(catalog)
app.register_install_completion_command(group=groups.MANAGE)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command of the command line, or of these words, and exit.

    The exit code is 0 for success, 1 if a stage failed, 2 for a mistake of the user, and 128 +
    signal if Ctrl-C or SIGTERM stopped the command or the reader of its output is gone.
    """
    signal.signal(signal.SIGTERM, _stop)
    raise_descriptor_limit()
    fit_streams()
    logging.raiseExceptions = False  # users need not know of logs that a server rejects
    words = with_home(sys.argv[1:] if words is None else words)
    remember_command(words)
    try:
        app(words, exit_on_error=False, print_error=True, result_action="return_value")
        if sys.stdout:
            sys.stdout.flush()
    except CycloptsError:
        code = 2
    except KeyboardInterrupt as stopped:
        say(f"\ntld: stopped; run {same_command()} to resume")
        # All state is on disk and our child processes have ended: do not wait for the threads of
        # libraries.
        os._exit(128 + (signal.SIGTERM if isinstance(stopped, _Terminated) else signal.SIGINT))
    except Exception as error:
        # A reader that closes early, as `head` does, is not an error to explain.
        code = 128 + signal.SIGPIPE if output_is_closed(error) else _explain(error)
        abandon_output()
        if code == 1 and os.environ.get("PREFECT_API_URL") and prefect_is_lost(error):
            os._exit(code)  # Prefect's client would wait minutes for its server
    else:
        code = 0
    sys.exit(code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _stop(_signal: int, _frame: object) -> None:
    raise _Terminated


def _explain(error: Exception) -> int:
    """Print an error for the user, and return the exit code.

    Error classes that are meant for users have an `exit_code`: 2 for a mistake of the user, 1 for a
    stage that failed.
    """
    from data_catalog.redaction import redact_credentials
    from flows.terminal.errors import external_cause, unusable_path

    def print_error(message: object) -> None:
        text = str(message).replace("the same command", same_command())
        say(redact_credentials(f"{traceback_to_show(error)}tld: {text}"))
        if log := log_of_failure():
            say(f"The log of this run: {log}")

    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        print_error(error)
        return code
    if os.environ.get("TLD_TRACEBACK") and not traceback_to_show(error):
        raise error
    if cause := external_cause(error):
        print_error(cause)
        return 1
    if mistake := unusable_path(error):
        print_error(mistake)
        return 2
    hint = "" if traceback_to_show(error) else "\n(set TLD_TRACEBACK=1 to see the traceback)"
    print_error(f"unexpected {type(error).__name__}: {error}{hint}")
    return 1
