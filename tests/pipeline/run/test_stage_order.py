"""The order in which the stages of a run are asked for, and on which parents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from pipeline.config.load import load_config
from pipeline.run.stage_order import run_in_order
from pipeline.stages.run_inputs import RunInputs
from tests.support.manifests import encodings_manifest
from tests.support.small import TINY, small

Call = tuple[str, str, list[str]]
PHASES = ("phases.second.train.seed=2",)
BOTH_REPORTS = ("distill.sample_steps=4",)


def run_with(
    *overrides: str, until: StageName | None = None
) -> tuple[list[Call], dict[str, Manifest]]:
    inputs = RunInputs(load_config(TINY, [*small("data"), *overrides]))
    calls: list[Call] = []

    def make_output(
        phase: RunInputs, stage: StageName, parents: Mapping[str, Manifest]
    ) -> Manifest:
        of_distilled = "distilled" if phase.config.model_stage == "distill" else ""
        calls.append((phase.config.phase or of_distilled, stage, list(parents)))
        encodings = encodings_manifest(Path(str(len(calls))), [1])
        return encodings.model_copy(update={"stage": stage})

    return calls, run_in_order(inputs, until, make_output)


def test_each_stage_follows_its_parents() -> None:
    calls, outputs = run_with()

    assert [stage for _, stage, _ in calls] == ["download", "encode", "train", "evaluate"]
    assert calls[-1] == ("", "evaluate", ["encode", "train"])
    assert list(outputs) == ["download", "encode", "train", "evaluate"]
    assert list(run_with(until="encode")[1]) == ["download", "encode"]


def test_a_phase_begins_with_the_model_of_the_one_before_and_shares_its_images() -> None:
    calls, outputs = run_with(*PHASES)

    assert calls == [
        ("first", "download", []),
        ("first", "encode", ["download"]),
        ("first", "train", ["encode"]),
        ("second", "train", ["encode", "train"]),
        ("second", "evaluate", ["encode", "train"]),
    ]
    assert outputs["encode"] is outputs["encode first"]
    assert outputs["train"] is not outputs["train first"]
    assert list(outputs)[-1] == "evaluate"


@pytest.mark.parametrize("until", [None, "distill"])
def test_the_distilled_model_has_a_report_of_its_own(until: StageName | None) -> None:
    calls, outputs = run_with(*BOTH_REPORTS, until=until)

    assert outputs["distill"].stage == "distill"
    if until:
        assert list(outputs)[-1] == "distill"
    else:
        assert calls[-1] == ("distilled", "evaluate", ["encode", "distill"])
        assert list(outputs)[-1] == "evaluate distilled"
