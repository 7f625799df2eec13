"""The checks before a run report everything at once, whichever part of the run it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from tests.support.small import TINY, small


def test_a_run_that_can_succeed_passes(tmp_path: Path) -> None:
    check_run(load_config(TINY, small(tmp_path / "data")))


def test_all_problems_are_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    config = load_config(
        TINY,
        small(
            tmp_path / "data",
            download__urls=tmp_path / "no-table.csv",
            encode__vae=tmp_path / "no-vae",
            model__text="tokens",
            train__held_out_fraction=0,
            train__init_from=tmp_path / "no-model",
        ),
    )
    with pytest.raises(ConfigError) as raised:
        check_run(config)
    title, *problems = str(raised.value).splitlines()
    assert title == "cannot start this run:"
    for setting in (
        *("download.urls", "encode.vae", "model.text", "train.held_out_fraction"),
        *("train.init_from", "root"),
    ):
        assert len([line for line in problems if line.startswith(f"  {setting}: ")]) == 1, setting
