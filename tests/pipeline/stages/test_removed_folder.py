"""The folder of an output, or the whole workspace, is removed while a stage works there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Output, StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker


def removed_with_its_work(folder: Path) -> Output:
    shutil.rmtree(folder)
    (folder / "00000.tar").write_bytes(b"")
    raise AssertionError("the write fails")


def made_anew_by_its_work(folder: Path) -> Output:
    shutil.rmtree(folder)
    (folder / ".00000").mkdir(parents=True)
    return Output((), {})


def whole_workspace(folder: Path) -> Output:
    shutil.rmtree(folder.parents[1])
    raise RuntimeError("whatever this leads to")


def replaced_by_a_file(folder: Path) -> Output:
    shutil.rmtree(folder)
    folder.touch()
    return Output((), {})


@pytest.mark.parametrize(
    "work", [removed_with_its_work, made_anew_by_its_work, whole_workspace, replaced_by_a_file]
)
def test_it_is_told_and_nothing_counts_as_made(
    tmp_path: Path, work: Callable[[Path], Output]
) -> None:
    config = load_config(TINY, small(tmp_path / "data"))
    message = (
        r"^download: .* was removed while the stage worked in it; run the same command to "
        r"start the stage again$"
    )
    with pytest.raises(StageFailed, match=message):
        download(config, work)
    for place in (tmp_path / "data").glob("*/*"):
        if place.is_file():
            place.unlink()
    assert stage_statuses(RunInputs(config))["download"].manifest is None
    assert download(config, lambda _: Output((), {})).rows == 0


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    def fails(_: Path) -> Output:
        raise KeyError("steps")

    with pytest.raises(KeyError, match=re.escape("'steps'")):
        download(load_config(TINY, small(tmp_path / "data")), fails)


def download(config: RunConfig, work: Callable[[Path], Output]) -> Manifest:
    return run_stage(RunInputs(config).stage_run("download", {}), RememberingTracker(), work)
