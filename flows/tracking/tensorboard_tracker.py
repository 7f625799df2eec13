"""Event files of TensorBoard in the workspace: a second tracker of a stage, beside MLflow's.

TLD_TENSORBOARD turns it on. Each stage of a run has a folder, named as its run in MLflow. Another
process of the same settings finds that folder by the settings in it, and what it reports takes the
place of what is there from the same step on: a training that resumes has one curve.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.image_formats import open_image
from data_catalog.storage.workspace import StageName, Workspace
from flows.terminal.errors import UserError
from flows.tracking.run_names import settings_until
from pipeline.config.distribution import install_command
from pipeline.config.run import RunConfig
from pipeline.config.typed_settings import overrides_between
from pipeline.config.yaml_tree import read_value

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

_VARIABLE = "TLD_TENSORBOARD"
_SETTINGS_FILE = "settings.json"
_LONGEST_NAME = 200  # bytes of a folder's name
_UNFIT = re.compile(r"[/\x00-\x1f\x7f]")  # for a folder's name


def tensorboard_is_on() -> bool:
    """Whether stages write event files."""
    return bool(os.environ.get("TLD_TENSORBOARD"))


def check_tensorboard() -> None:
    """Raise UserError if event files are asked for and TensorBoard is not installed."""
    if tensorboard_is_on() and find_spec("tensorboard") is None:
        raise UserError(
            f"{_VARIABLE} is set, but TensorBoard is not installed: "
            f"{install_command('tensorboard')}; or unset {_VARIABLE}"
        )


class TensorBoardTracker:
    """A Tracker that writes scalars, images and settings of a stage. Whatever fails in it is one
    warning: the stage goes on."""

    run_id = ""

    def __init__(
        self, config: RunConfig, stage: StageName, title: str, warn: Callable[[str], None]
    ) -> None:
        self._experiment = Workspace(config.folder).tensorboard / config.name
        self._settings = settings_until(stage, overrides_between({}, config))
        self._title, self._warn = title, warn
        self._file: Path | None = None  # of events, from the first report on
        self._step = 0
        self._early: list[str] = []  # warnings before the first step is known
        self._has_failed = False

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        def scalars() -> Iterator[Summary]:
            from torch.utils.tensorboard.summary import scalar

            yield from (scalar(name, value) for name, value in values.items())

        self._write(step, scalars)

    def image(self, path: Path, name: str, step: int) -> None:
        def pixels() -> Iterator[Summary]:
            import numpy as np
            from torch.utils.tensorboard.summary import image

            with open_image(path) as opened:
                yield image(name, np.asarray(opened.convert("RGB")), dataformats="HWC")

        self._write(step, pixels)

    def warning(self, text: str) -> None:
        if self._file is None:  # which would count from step 0, and drop an earlier curve
            self._early.append(text)
            return

        def words() -> Iterator[Summary]:
            from torch.utils.tensorboard.summary import text as as_text

            yield as_text("warning", text)

        self._write(self._step, words)

    def artifact(self, path: Path, folder: str = "") -> None:
        """MLflow has the files."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """The terminal has it."""

    def note(self, text: str) -> None:
        """The terminal has it."""

    def _write(self, step: int, summaries: Callable[[], Iterator[Summary]]) -> None:
        """Append events of a step. The file is closed in between: a stage has no end here."""
        if self._has_failed:
            return
        try:
            from tensorboard.compat.proto.event_pb2 import Event

            if self._file is None:
                self._file = self._new_file()
                _append(self._file, _beginning(step, self._settings))
            self._step = step
            now = time.time()
            events = (Event(wall_time=now, step=step, summary=one) for one in summaries())
            _append(self._file, events)
            early, self._early = self._early, []
            for text in early:
                self.warning(text)
        except Exception as error:  # of a library or the disk; a run is worth more than its curves
            self._has_failed = True
            self._warn(
                f"TensorBoard gets no more of this stage ({str(error)[:300]}); MLflow has all of it"
            )

    def _new_file(self) -> Path:
        """A file in the folder of these settings, which is created if there is none. Later files
        have later names."""
        folder = _folder_of(self._experiment, self._title, self._settings)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._settings, indent=1, ensure_ascii=False)
        (folder / _SETTINGS_FILE).write_text(text, encoding="utf-8")
        return folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"


def _folder_of(experiment: Path, title: str, settings: Mapping[str, str]) -> Path:
    """The folder of a stage with these settings; a new one if none has them."""
    for path in sorted(experiment.glob(f"*/{_SETTINGS_FILE}")):
        with suppress(OSError, ValueError):
            if json.loads(path.read_text(encoding="utf-8")) == settings:
                return path.parent
    name = _UNFIT.sub("_", title).encode()[:_LONGEST_NAME].decode(errors="ignore")
    number = 1
    while (folder := experiment / (name if number == 1 else f"{name} ({number})")).exists():
        number += 1
    return folder


def _beginning(step: int, settings: Mapping[str, str]) -> Iterator[Event]:
    """The first events of a file: the format, the step from which on it counts, and the settings,
    which the page HPARAMS compares."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from torch.utils.tensorboard.summary import hparams

    now = time.time()
    yield Event(wall_time=now, file_version="brain.Event:2")
    yield Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
    typed = {name: _parameter(value) for name, value in settings.items()}
    _, of_session, _ = hparams(typed, {})
    yield Event(wall_time=now, summary=of_session)


def _parameter(value: str) -> str | float:
    """A setting as a number, by which HPARAMS can sort, or as it is typed."""
    typed = read_value(value)
    return typed if isinstance(typed, int | float) and not isinstance(typed, bool) else value


def _append(path: Path, events: Iterator[Event]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("ab") as file:
        records = RecordWriter(file)
        for event in events:
            records.write(event.SerializeToString())
