"""Two models of a small workspace on the same prompts: what is sampled, what is concluded, what is
refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_catalog.scores import DISTANCES
from pipeline.config.run import RunConfig
from pipeline.evaluate.compare import ComparisonError, TrainedRun, compare
from pipeline.evaluate.comparison_page import write_comparison
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.browser import needs_browser
from tests.support.feature_networks import save_dinov2
from tests.support.offline_page import DESK, PHONE, opened
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace

SIZES = (64, 64)  # enough for distances


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "data"


@pytest.fixture(scope="module")
def first(root: Path) -> TrainedRun:
    return run_of(make_workspace(root, SIZES), "first")


@pytest.fixture(scope="module")
def page(root: Path, first: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with a run of other encodings, another model and another seed of its
    evaluation."""
    changed = {"encode.latent_clip": 6, "train.seed": 1, "evaluate.seed": 5, "evaluate.guidance": 1}
    second = run_of(make_workspace(root, SIZES, **changed), "second")
    comparison = compare(first, second, 50, RememberingTracker())
    assert len(comparison.captions) == 50
    folder = tmp_path_factory.mktemp("page")
    write_comparison(folder, comparison)
    return folder / "comparison.html"


def run_of(config: RunConfig, name: str) -> TrainedRun:
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    return TrainedRun(name, config, encodings, model)


def other_evaluation(run: TrainedRun, **changed: object) -> TrainedRun:
    config = run.config.model_copy(
        update={"evaluate": run.config.evaluate.model_copy(update=changed)}
    )
    return TrainedRun("other", config, run.encodings, run.model)


@pytest.mark.slow
def test_every_score_has_both_values_their_difference_and_its_interval(page: Path) -> None:
    results = json.loads(page.with_suffix(".json").read_text())
    assert results["runs"] == {"A": "first", "B": "second"}
    assert {"clip_score", "prompt_accuracy", "cmmd", "frechet_distance", "diversity"} <= set(
        results["scores"]
    )
    for name, row in results["scores"].items():
        difference = row["second"]["value"] - row["first"]["value"]
        assert row["difference"]["value"] == pytest.approx(difference, abs=1e-9), name
        if name == "diversity":  # of 16 captions
            assert row["difference"]["low"] is row["difference"]["high"] is None
            assert row["verdict"] == "no interval"
            continue
        assert (
            row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
        ), name
        of_some = name.startswith("accuracy/") or name == "open_attribute_diversity"
        assert (row["difference"]["n"] < 50) is of_some, "partial captions"
    assert "open_attribute_diversity" in results["scores"]
    assert results["scores"]["clip_score"]["difference"]["value"] != 0
    assert page.with_suffix(".png").stat().st_size > 0


@pytest.mark.slow
def test_few_prompts_show_nothing_and_the_page_says_why(first: TrainedRun, tmp_path: Path) -> None:
    comparison = compare(first, other_evaluation(first, guidance=1.0), 8, RememberingTracker())
    assert {row.verdict for row in comparison.rows} == {"no interval"}
    write_comparison(tmp_path, comparison)
    results = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert results["scores"]["clip_score"]["difference"]["low"] is None
    assert set(results["scores"]).isdisjoint(DISTANCES)
    page = (tmp_path / "comparison.html").read_text()
    assert "&lt; 20 captions" in page
    assert "they need 50 images, and here are 8" in page


def test_both_start_from_the_same_noise(first: TrainedRun) -> None:
    """The seed of the first holds for both: without guidance to tell them apart, no number
    differs."""
    same = other_evaluation(
        first, seed=first.config.evaluate.seed + 3, guidance=first.config.evaluate.guidance + 1e-9
    )
    comparison = compare(first, same, 4, RememberingTracker())
    assert [abs(row.difference.value) < 1e-6 for row in comparison.rows] == [True] * len(
        comparison.rows
    )


def test_both_are_judged_by_the_features_of_the_first(first: TrainedRun, tmp_path: Path) -> None:
    dinov2 = f"dinov2:{save_dinov2(tmp_path)}"
    by_dinov2 = other_evaluation(first, features=(dinov2, "clip"))
    other = other_evaluation(first, guidance=first.config.evaluate.guidance + 1)
    comparison = compare(by_dinov2, other, 4, RememberingTracker())
    names = {row.name for row in comparison.rows}
    assert {"clip_score", "diversity/dinov2"} < names
    assert "diversity" not in names
    assert all(drawn.judged.features.keys() == {"dinov2", "clip"} for drawn in comparison.drawn)


def test_what_cannot_be_compared_is_refused_before_any_work(first: TrainedRun) -> None:
    track = RememberingTracker()
    with pytest.raises(
        ComparisonError, match="both runs have the same model and the same sampling settings"
    ):
        compare(first, other_evaluation(first, batch_size=5, prompts=3), 4, track)

    encoders = {
        **first.encodings.figures["encoders"],
        "clip": "other-clip",
        "clip_identity": "other",
    }
    judged_otherwise = first.encodings.model_copy(
        update={"figures": {**first.encodings.figures, "encoders": encoders}}
    )
    with pytest.raises(ComparisonError, match="that of A is 'shapes-clip', that of B 'other-clip'"):
        compare(first, TrainedRun("other", first.config, judged_otherwise, first.model), 4, track)

    settings = {**first.model.settings, "held_out_fraction": 1e-9}
    trained_on_them = first.model.model_copy(update={"settings": settings, "digest": "other"})
    with pytest.raises(ComparisonError, match="1 pairs are held out of both runs"):
        compare(
            first, TrainedRun("other", first.config, first.encodings, trained_on_them), 4, track
        )
    assert not track.shown


@needs_browser
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_browser_without_network_shows_the_whole_page(
    page: Path, tmp_path: Path, width: int
) -> None:
    from playwright.sync_api import expect

    with opened(page, width, tmp_path) as shown:
        for text in (
            "Comparison of two runs",
            "encode.latent_clip",
            "train.seed",
            "prompt_accuracy",
            "Side by side",
        ):
            expect(shown.get_by_text(text).first).to_be_visible()
        assert shown.locator("figure").count() == 12 + 6 + 6, "spread, where B gains, where B loses"
        assert shown.locator("figure").first.locator("img").count() == 3, "A, B, held out"
