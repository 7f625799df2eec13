"""What identifies the outputs of a run is read once, and then it is a value."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_catalog.input_rows import digests_of
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY, small
from tld_model.encoders import names

TABLE = "url,caption\nhttps://example.org/1.jpg,a red star\n"


def config_of(root: Path, **changed: object) -> RunConfig:
    (root / "table.csv").write_text(TABLE)
    settings = {"download.urls": root / "table.csv", "download.url_column": "url", **changed}
    overrides = [f"{name}={value}" for name, value in settings.items()]
    return load_config(TINY, [*small(root / "data"), "download.caption_column=caption", *overrides])


class Counting:
    """A function that remembers what it was called with."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.of: list[object] = []

    def __call__(self, argument: object) -> Any:
        self.of.append(argument)
        return self.function(argument)


def test_files_are_read_once_for_all_stages_and_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, files = Counting(digests_of), Counting(names._digest)
    monkeypatch.setattr("pipeline.stages.run_inputs.digests_of", tables)
    monkeypatch.setattr(names, "_digest", files)
    inputs = RunInputs(config_of(tmp_path))
    assert not tables.of, "nothing is read before it is asked for"
    for _ in range(3):
        stage_statuses(inputs)
        inputs.stage_run("download", {})
        inputs.settings("encode")
    assert len(tables.of) == 1
    assert len(files.of) == len(set(files.of)) > 0


def test_a_file_that_changes_meanwhile_changes_the_next_value_only(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    inputs = RunInputs(config)
    before = inputs.stage_run("download", {})
    (tmp_path / "table.csv").write_text(TABLE + "https://example.org/2.jpg,a blue star\n")
    assert inputs.stage_run("download", {}) == before
    after = RunInputs(config).stage_run("download", {})
    assert after.fingerprint != before.fingerprint
    assert after.folder != before.folder
    assert after.folder.parent == before.folder.parent


def test_the_name_of_a_file_is_no_part_of_the_identity(tmp_path: Path) -> None:
    one = RunInputs(config_of(tmp_path)).stage_run("download", {})
    shutil.copy(tmp_path / "table.csv", tmp_path / "copy.csv")
    other = RunInputs(config_of(tmp_path, **{"download.urls": tmp_path / "copy.csv"}))
    assert other.stage_run("download", {}).fingerprint == one.fingerprint


def test_the_path_of_feature_weights_is_no_part_of_the_identity(tmp_path: Path) -> None:
    def settings(name: str, weights: bytes, features: str = "inception:{}") -> dict[str, Any]:
        (tmp_path / name).write_bytes(weights)
        chosen = features.format(tmp_path / name)
        return RunInputs(config_of(tmp_path, **{"evaluate.features": f"[{chosen}]"})).settings(
            "evaluate"
        )

    one = settings("a.pth", b"weights")
    assert one["features"] == ["inception"]
    assert settings("b.pth", b"weights") == one
    assert settings("a.pth", b"others") != one
    assert settings("a.pth", b"weights", "clip,inception:{}") != one
    assert "features" not in settings("a.pth", b"weights", "clip")
