"""Quality against time: which point is chosen, what is drawn again, what the page shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_catalog.images import Images
from data_catalog.model_files import Average
from data_catalog.storage.manifest import Manifest
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.run import RunConfig
from pipeline.evaluate.held_out_samples import load_models
from pipeline.evaluate.sweep import sweep, sweep_folder, variants
from pipeline.evaluate.sweep_page import trade_off, write_sweep
from pipeline.evaluate.sweep_points import Point, SamplingVariant, Sweep, fastest_on_par
from pipeline.held_out.samples import HeldOutSet, Models, sample_held_out
from pipeline.scoring.bootstrap import bootstrap_share
from pipeline.scoring.metrics import mean_statistic
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.browser import needs_browser
from tests.support.command import tld
from tests.support.offline_page import DESK, PHONE, opened
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, overrides
from tld_model.config import SamplingSettings


def point(steps: int, latency_s: float, right: int, of: int = 200) -> Point:
    """So many of the pictures are right: always the first, so that points differ in the same
    prompts."""
    rows = (np.arange(of) < right).astype(float)
    return Point(
        SamplingVariant(SamplingSettings(steps), 0),
        latency_s,
        rows,
        np.arange(of),
        bootstrap_share(mean_statistic(rows), np.arange(of)),
    )


def test_the_fastest_that_chance_cannot_tell_from_the_best_is_recommended() -> None:
    best, nearly, worse = point(20, 2.0, 180), point(10, 1.0, 178), point(5, 0.5, 150)
    assert fastest_on_par([best, nearly, worse]) is nearly
    assert fastest_on_par([best, worse]) is best
    swept = Sweep("prompt_accuracy", [best, nearly, worse, point(10, 3.0, 179)], best.way, nearly)
    assert swept.front == [worse, nearly, best]


def test_of_few_captions_the_best_is_recommended() -> None:
    """No interval tells what is as good, so the fastest would be any point at all."""
    best, worse = point(20, 2.0, 15, of=18), point(5, 0.5, 2, of=18)
    assert fastest_on_par([worse, best]) is best
    equal = point(10, 1.0, 15, of=18)
    assert fastest_on_par([best, equal, worse]) is equal


def test_every_combination_is_a_way_and_the_runs_own_is_among_them(workspace: RunConfig) -> None:
    ways = variants(workspace.evaluate, (1, 2), (4, 5), ("heun", "dpmpp_2m"), (0,))
    assert len(ways) == 8
    assert ways[0].sampling == workspace.evaluate.sampling == SamplingSettings(4, 2.0)
    assert len(variants(workspace.evaluate, (1,), (5,), ("heun",), (0,))) == 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_workspace(tmp_path_factory.mktemp("sweep") / "data")


def outputs(config: RunConfig) -> tuple[Manifest, Manifest]:
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    return encodings, model


@pytest.fixture(scope="module")
def swept(workspace: RunConfig) -> Sweep:
    encodings, model = outputs(workspace)
    requested = variants(workspace.evaluate, (1, 2), (2, 4), ("dpmpp_2m",), (0,))
    return sweep(workspace, encodings, model, requested, 6, RememberingTracker())


def test_what_was_drawn_once_is_not_drawn_again(
    workspace: RunConfig, swept: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodings, model = outputs(workspace)
    requested = [point.way for point in swept.points]
    drawn: list[int] = []

    def never(*_: object) -> None:
        drawn.append(1)
        raise AssertionError

    monkeypatch.setattr("pipeline.evaluate.sweep.sample_held_out", never)
    again = sweep(workspace, encodings, model, requested, 6, RememberingTracker())
    assert [(p.way, p.latency_s, p.quality) for p in again.points] == [
        (p.way, p.latency_s, p.quality) for p in swept.points
    ]
    new = replace(requested[0], sampling=replace(requested[0].sampling, steps=9))
    with pytest.raises(AssertionError):
        sweep(workspace, encodings, model, [*requested, new], 6, RememberingTracker())
    assert drawn == [1]


def test_each_point_is_drawn_with_its_own_average_though_others_are_known(
    workspace: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace holds one average: which of them is asked for is what counts here."""
    encodings, model = outputs(workspace)
    loaded: list[Average] = []
    drawn: list[tuple[Average, Average]] = []

    def load(encodings: Manifest, model: Manifest, settings: EvaluateConfig) -> Models:
        loaded.append(settings.ema)
        return load_models(encodings, model, settings.model_copy(update={"ema": 0}))

    def draw(
        models: Models, held_out: HeldOutSet, settings: EvaluateConfig, track: ShowsProgress
    ) -> Images:
        drawn.append((settings.ema, loaded[-1]))
        return sample_held_out(models, held_out, settings, track)

    monkeypatch.setattr("pipeline.evaluate.sweep.load_models", load)
    monkeypatch.setattr("pipeline.evaluate.sweep.sample_held_out", draw)
    for guidance in ((7.0,), (7.0, 8.0)):
        requested = [
            SamplingVariant(SamplingSettings(2, scale), ema) for scale in guidance for ema in (0, 1)
        ]
        sweep(workspace, encodings, model, requested, 6, RememberingTracker())
    assert len(drawn) == 4
    assert all(asked == had for asked, had in drawn)


def test_a_model_of_other_bytes_is_measured_anew(workspace: RunConfig, swept: Sweep) -> None:
    encodings, model = outputs(workspace)
    folder = sweep_folder(workspace, model)
    before = len(list(folder.glob("*.safetensors")))
    other = model.model_copy(update={"digest": "0" * 64})
    sweep(workspace, encodings, other, [swept.chosen], 6, RememberingTracker())
    assert len(list(folder.glob("*.safetensors"))) == before + 1


def test_guidance_and_steps_reach_the_pictures(workspace: RunConfig, swept: Sweep) -> None:
    _, model = outputs(workspace)
    stored = {path.read_bytes() for path in sweep_folder(workspace, model).glob("*.safetensors")}
    assert len(stored) >= len(swept.points) == 4
    assert all(point.quality.n == 6 and point.latency_s > 0 for point in swept.points)


@needs_browser
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_page_shows_the_plot_and_marks_the_chosen(
    workspace: RunConfig, swept: Sweep, width: int, tmp_path: Path
) -> None:
    _, model = outputs(workspace)
    folder = sweep_folder(workspace, model)
    write_sweep(folder, "tiny", model, swept)
    results = json.loads((folder / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert [p["chosen"] for p in results["points"]] == [True, False, False, False]
    assert sum(p["best"] for p in results["points"]) == 1
    with opened(folder / "sweep.html", width, tmp_path) as page:
        assert page.get_by_role("row").count() == 1 + len(swept.points)
        assert page.get_by_role("cell", name="config").count() == 1


@needs_browser
def test_a_distilled_model_is_on_the_plot_beside_its_teacher(
    workspace: RunConfig, swept: Sweep, tmp_path: Path
) -> None:
    _, model = outputs(workspace)
    student = SamplingVariant(SamplingSettings(4, 1.0, "euler"), 0)
    both = replace(swept, distilled=replace(swept.best, way=student))
    write_sweep(tmp_path, "tiny", model, both)
    results = json.loads((tmp_path / "sweep.json").read_text())
    assert (results["distilled"]["steps"], results["distilled"]["solver"]) == (4, "euler")
    assert len(results["points"]) == len(swept.points)
    with opened(tmp_path / "sweep.html", DESK, tmp_path) as page:
        assert page.get_by_role("row").count() == 2 + len(swept.points)
        assert page.get_by_role("cell", name="distilled model").count() == 1
    legend = [text.get_text() for text in trade_off(both).legends[0].get_texts()]
    assert "distilled model" in legend


@pytest.mark.slow
def test_mistakes_are_told_at_once_and_the_command_ends_with_what_to_type(
    workspace: RunConfig,
) -> None:
    settings = overrides(workspace.folder)
    done = tld(
        "sweep",
        TINY,
        *settings,
        "--guidance",
        "0.5",
        "inf",
        "2",
        "--steps",
        "0",
        "--ema",
        "3",
        "--prompts",
        "1",
    )
    assert done.returncode == 2
    for says in (
        "--guidance must be from 1 to 1000, got 0.5",
        "--guidance must be from 1 to 1000, got inf",
        "--steps must be from 1 to 10000, got 0",
        "--ema: there is no average 3; train.ema_decay has 1",
        "--prompts must be at least 2, got 1",
    ):
        assert says in done.stderr
    assert tld("sweep", TINY, *settings, "train.seed=9").returncode == 2, "no such model"
    done = tld(
        "sweep", TINY, *settings, "--guidance", "1", "2", "--steps", "2", "4", "--prompts", "6"
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate.guidance=" in done.stdout
    assert "sweep.html" in done.stdout
