"""The lines of `tld bench` on memory: what a step needs, what fits, and which settings would."""

from __future__ import annotations

from typing import Any

import pytest

from flows.cli.tables import memory_lines
from pipeline.bench.memory_fit import in_parts_that_fit, memory_fit
from pipeline.config.load import load_config
from pipeline.config.train import TrainConfig
from pipeline.train.step_memory import StepMemories, StepMemory
from tests.support.command import REPOSITORY

MIB = 2**20
MEMORIES = StepMemories(StepMemory(1000 * MIB, 100 * MIB), StepMemory(900 * MIB, 10 * MIB))
DOES_NOT_FIT = "the configured batch does not fit on this device: set "


def lines(usable_mib: int, **train: Any) -> list[str]:
    config = TrainConfig(**{"batch_size": 64} | train)
    return memory_lines(memory_fit(MEMORIES, config, usable_mib * MIB))


def test_what_fits_needs_no_advice() -> None:
    assert lines(8000) == [
        "projected, not measured: with 64 images at a time a step needs 7,400 MiB, with "
        "train.checkpoint_blocks=true 1,540 MiB; 8,000 MiB of this device are usable, for 70 "
        "images at a time, with train.checkpoint_blocks=true 710"
    ]
    assert len(lines(2000, checkpoint_blocks=True)) == 1
    assert lines(8000, launch={"processes": 2}, accumulate=4)[0].startswith(
        "projected, not measured: with 8 images"
    )


@pytest.mark.parametrize(
    ("usable_mib", "train", "advice"),
    [
        (7399, {}, "train.checkpoint_blocks=true, or train.accumulate=2"),
        (1400, {}, "train.checkpoint_blocks=true train.accumulate=2, or train.accumulate=16"),
        (1000, {}, "train.checkpoint_blocks=true train.accumulate=8"),
        (1400, {"checkpoint_blocks": True}, "train.accumulate=2"),
        (3000, {"accumulate": 2}, "train.checkpoint_blocks=true, or train.accumulate=4"),
    ],
)
def test_what_does_not_fit_gets_settings_that_do(
    usable_mib: int, train: dict[str, Any], advice: str
) -> None:
    assert lines(usable_mib, **train)[1:] == [DOES_NOT_FIT + advice]


def test_a_model_without_room_is_told() -> None:
    assert "too little memory for the model" in lines(500)[1]


def test_a_batch_that_does_not_fit_is_measured_in_parts() -> None:
    config = load_config(REPOSITORY / "conf/tld-100m.yaml", ["train.batch_size=64"])
    for usable_mib, parts in ((8000, 1), (3000, 4), (500, 1)):
        fitting = in_parts_that_fit(config, MEMORIES.plain, usable_mib * MIB)
        assert fitting.train.accumulate == parts
