"""The record that a run writes of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import locked
from data_catalog.storage.run_records import RunRecord, read_records
from flows.terminal import run_record
from flows.terminal.progress import Progress
from flows.terminal.run_log import run_log
from flows.terminal.run_record import new_log, recorded_run
from pipeline.config.command_line import remember_command
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.contract import StageFailed
from tests.support.small import TINY


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return load_config(TINY, [f"root={tmp_path}"])


def last(root: Path) -> RunRecord:
    return read_records(root)[-1].record


def states(root: Path) -> list[str]:
    return [f"{stage.title} {stage.state}" for stage in last(root).stages]


def test_it_follows_the_stages(
    tmp_path: Path, settings: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "_EVERY_S", 0.0)
    plan = ["train first", "encode next", "train next", "evaluate next", "evaluate distilled next"]
    with recorded_run(settings, plan):
        assert last(tmp_path).note == "starting"
        with Progress("train first") as show:
            show.update(3, 12, "loss 0.5 of https://user:secret@example.org/x")
            assert (last(tmp_path).done, last(tmp_path).total) == (3, 12)
            assert last(tmp_path).note == "loss 0.5 of https://example.org/x"
            show.finish("12 rows in 2 s")
        assert last(tmp_path).lines == ("train first: 12 rows in 2 s",)
        with Progress("train next"):
            earlier = ["train first done", "encode next done", "train next at work"]
            assert states(tmp_path)[:3] == earlier, "an output of the phase before is no work"
        with Progress("evaluate next"):
            pass
        with Progress("evaluate next"):
            assert states(tmp_path)[3:] == [
                "evaluate next done",
                "evaluate distilled next at work",
            ]
        assert read_records(tmp_path)[-1].is_at_work
    assert last(tmp_path).ended == "finished"
    assert not read_records(tmp_path)[-1].is_at_work


def test_a_forced_stage_is_forced_again_until_it_has_begun(
    tmp_path: Path, settings: RunConfig
) -> None:
    remember_command(["run", "tiny", "--force", "download", "--force", "train"])
    with recorded_run(settings, ["download", "encode", "train"]):
        assert last(tmp_path).resume == "tld run tiny --force download --force train"
        with Progress("download"):
            assert last(tmp_path).resume == "tld run tiny --force train"
        with Progress("train"):
            assert last(tmp_path).resume == "tld run tiny"


def test_what_is_not_planned_leaves_the_plan_as_it_is(tmp_path: Path, settings: RunConfig) -> None:
    with recorded_run(settings, ["download first", "encode first"]):
        with Progress("download first"), Progress("stop"):
            pass
        with Progress("export"):
            assert states(tmp_path) == [
                "download first done",
                "encode first to do",
                "stop done",
                "export at work",
            ]


def test_it_says_how_a_run_ended(tmp_path: Path, settings: RunConfig) -> None:
    with pytest.raises(StageFailed), recorded_run(settings, ["encode"]), Progress("encode"):
        raise StageFailed("encode: no image is left in https://user:secret@example.org/x")
    assert last(tmp_path).ended == "failed"
    assert last(tmp_path).stage == "encode", "where it failed"
    assert last(tmp_path).lines[-1] == "encode: no image is left in https://example.org/x"
    with pytest.raises(KeyboardInterrupt), recorded_run(settings, []):
        raise KeyboardInterrupt
    assert last(tmp_path).ended == "stopped"


def test_it_lies_beside_its_log(tmp_path: Path, settings: RunConfig) -> None:
    with recorded_run(settings, []), run_log(tmp_path):
        pass
    record, log = sorted((tmp_path / "logs").iterdir())
    assert (record.suffix, log.suffix) == (".json", ".log")
    assert record.stem == log.stem
    assert "finished" in log.read_text()
    assert json.loads(record.read_text())["name"] == "tiny"


def test_a_workspace_without_room_for_it_stops_no_run(tmp_path: Path, settings: RunConfig) -> None:
    (tmp_path / "logs").touch()  # where the folder would be
    with recorded_run(settings, ["train"]), Progress("train") as show:
        show.update(1, 2, "")
    assert read_records(tmp_path) == []


def test_a_record_that_can_no_longer_be_written_stops_no_run(
    tmp_path: Path, settings: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with recorded_run(settings, ["train"]):
        monkeypatch.setattr(run_record, "write_record", fail)
        with Progress("train") as show:
            show.finish("a line")
    assert read_records(tmp_path)[-1].was_killed, "which is all that its record says"


def test_many_short_runs_push_out_no_run_that_is_at_work(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    long_one = tmp_path / "logs/2020-01-01T00-00-00-1.log"
    with locked(long_one, 0):
        for day in range(10, 35):
            (tmp_path / f"logs/2020-01-{day}T00-00-00-1.log").touch()
            (tmp_path / f"logs/2020-01-{day}T00-00-00-1.json").touch()
        new_log(tmp_path)
        assert long_one.exists()
    assert len(list((tmp_path / "logs").glob("*.log"))) == 20
    assert len(list((tmp_path / "logs").glob("*.json"))) == 19, "they go with their logs"
