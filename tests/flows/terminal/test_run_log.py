"""The log of a run, in the workspace."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.cli.app import _explain
from flows.terminal.progress import Progress
from flows.terminal.run_log import log_of_failure, run_log
from pipeline.stages.contract import StageFailed


def logs(root: Path) -> list[Path]:
    return sorted((root / "logs").glob("*.log"))


def test_it_has_every_line_and_what_libraries_warn_of(tmp_path: Path) -> None:
    with run_log(tmp_path), Progress("train") as show:
        show.finish("resumed at step 50 of 170")
        logging.getLogger("a.library").warning("slow: https://user:secret@example.org/x")
    logging.getLogger("a.library").warning("after the run")
    (path,) = logs(tmp_path)
    text = path.read_text()
    assert "command: tld" in text
    assert "train     resumed at step 50 of 170" in text
    assert "a.library: slow: https://example.org/x" in text
    assert "finished" in text
    assert "after the run" not in text
    assert log_of_failure() is None


def test_a_failure_has_its_traceback_in_the_log_that_its_message_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StageFailed) as failed, run_log(tmp_path):
        raise StageFailed("encode: no image is left")
    (path,) = logs(tmp_path)
    assert "Traceback" in path.read_text()
    assert _explain(failed.value) == 1
    assert capsys.readouterr().err == (
        f"tld: encode: no image is left\nThe log of this run: {path}\n"
    )
    _explain(failed.value)
    assert "log of this run" not in capsys.readouterr().err, "the next command has its own"


def test_an_interrupt_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_log(tmp_path):
        raise KeyboardInterrupt
    (path,) = logs(tmp_path)
    assert path.read_text().endswith("tld.run: stopped\n")
    assert log_of_failure() is None


def test_the_newest_twenty_are_kept(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for day in range(10, 35):
        (tmp_path / f"logs/2020-01-{day}T00-00-00-1.log").touch()
    with run_log(tmp_path):
        pass
    names = [path.name for path in logs(tmp_path)]
    assert len(names) == 20
    assert names[0].startswith("2020-01-16"), "the oldest are gone"


def test_a_workspace_without_room_for_it_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()  # where the folder would be
    with run_log(tmp_path):
        logging.getLogger("tld.progress").info("a line")
    assert log_of_failure() is None
