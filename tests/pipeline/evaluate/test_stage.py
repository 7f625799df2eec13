"""The last stage on a small workspace: what it scores, what it keeps for the next evaluation, and
its page."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_catalog.scores import DISTANCES, SCORES
from data_catalog.storage.manifest import Manifest, ManifestError
from data_catalog.storage.workspace import Workspace
from pipeline.compute.hardware import hardware
from pipeline.config import command_line
from pipeline.config.command_line import remember_command
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.evaluate.held_out_samples import load_models
from pipeline.evaluate.stage import evaluate
from pipeline.preflight.check import check_run
from pipeline.scoring.image_scores import load_judged, save_judged
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.browser import needs_browser
from tests.support.feature_networks import save_dinov2
from tests.support.offline_page import DESK, PHONE, opened
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace
from tld_model.encoders.names import encoder_identity

ON_CLIP = ("cmmd", "kernel_distance", "frechet_distance")


def report_of(
    config: RunConfig, force: bool = False, track: RememberingTracker | None = None
) -> Manifest:
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    track = track or RememberingTracker(run_id="run-of-evaluate")
    work = partial(evaluate, encodings, model, config.evaluate, track=track)
    return run_stage(
        RunInputs(config).stage_run("evaluate", {"encode": encodings, "train": model}),
        track,
        work,
        force=force,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_workspace(tmp_path_factory.mktemp("judge") / "data")


@pytest.fixture(scope="module")
def report(config: RunConfig) -> Manifest:
    return report_of(config)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A report of enough images and captions for every score."""
    root = tmp_path_factory.mktemp("large") / "data"
    return report_of(make_workspace(root, (64, 64), evaluate__prompts=50))


def test_every_score_has_an_interval_and_says_of_how_many_prompts_it_is(large: Manifest) -> None:
    report = large
    metrics = json.loads(report.file("metrics.json").read_text())
    computed = {name for name, score in SCORES.items() if score.features in ("", "clip")}
    of_columns = {"retrieval_at_1", "retrieval_at_5"}
    of_other_prompts = {"held_out_loss", "latency_s", "diversity", "open_attribute_diversity"}
    for name in computed - of_other_prompts - of_columns:
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
        assert (metrics[name]["n"] < 50) is name.startswith("accuracy/"), "partial captions"
    full, partial = (metrics[f"prompt_accuracy/{part}"]["n"] for part in ("full", "partial"))
    assert full + partial == 50
    varied = metrics["open_attribute_diversity"]
    assert 20 <= varied["n"] <= partial, "distinct partial captions"
    assert varied["low"] <= varied["value"] <= varied["high"]
    assert varied["value"] < 0.5, "the model is untrained"
    assert metrics["diversity"]["n"] == 16, "too few captions for an interval"
    assert metrics["diversity"]["low"] is metrics["diversity"]["high"] is None
    assert "diversity" not in report.figures["intervals"]
    bins = [name for name in metrics if name.startswith("held_out_loss/")]
    assert len(bins) == 5
    for name in ("held_out_loss", *bins):
        assert 0 < metrics[name]["low"] < metrics[name]["value"] < metrics[name]["high"], name
        assert metrics[name]["n"] == 72, "all held-out pairs"
    assert (
        metrics["clip_score"]["low"]
        < metrics["clip_score"]["value"]
        < metrics["clip_score"]["high"]
    )
    assert metrics["reference/prompt_accuracy"]["value"] > 0.9
    assert report.figures["scores"] == {name: value["value"] for name, value in metrics.items()}
    assert report.figures["intervals"]["cmmd"] == [metrics["cmmd"]["low"], metrics["cmmd"]["high"]]


def test_distances_on_other_features_have_their_names_and_the_weights_are_recorded(
    tmp_path: Path, large: Manifest
) -> None:
    dinov2 = save_dinov2(tmp_path)
    root = large.folder.parents[2]
    config = make_workspace(
        root, (64, 64), evaluate__prompts=50, evaluate__features=f"['dinov2:{dinov2}',clip]"
    )
    report = report_of(config)
    scores, before = report.figures["scores"], large.figures["scores"]
    distances = ("cmmd", "kernel_distance", "frechet_distance")
    others = {f"{name}/dinov2" for name in distances}
    of_real = {f"reference/{name}" for name in others}
    assert scores.keys() - before.keys() == {*others, *of_real, "diversity/dinov2"}
    of_real = {f"reference/{name}" for name in distances}
    assert before.keys() - scores.keys() == {*of_real, "diversity"}, "of the first features alone"
    assert {name: scores[name] for name in ON_CLIP} == {name: before[name] for name in ON_CLIP}
    assert others <= report.figures["intervals"].keys()

    clip = encoder_identity(config.encode.clip or "")
    assert report.figures["features"] == {"dinov2": encoder_identity(dinov2), "clip": clip}
    assert large.figures["features"] == {"clip": clip}
    page = report.file("report.html").read_text()
    for text in ("frechet_distance/dinov2", encoder_identity(dinov2), clip):
        assert text in page


def test_other_weights_make_a_report_stale(tmp_path: Path, large: Manifest) -> None:
    dinov2 = save_dinov2(tmp_path)
    config = make_workspace(
        large.folder.parents[2],
        (64, 64),
        evaluate__prompts=50,
        evaluate__features=f"['dinov2:{dinov2}']",
    )
    before = RunInputs(config).settings("evaluate")
    assert before["features_identity"] == {"dinov2": encoder_identity(dinov2)}
    with (tmp_path / "config.json").open("a") as file:
        file.write(" ")
    assert RunInputs(config).settings("evaluate") != before


def test_missing_weights_end_no_command_that_does_not_evaluate(
    tmp_path: Path, large: Manifest
) -> None:
    dinov2 = save_dinov2(tmp_path)
    features = f"['dinov2:{dinov2}','inception:{tmp_path}/no.pth',efficientnet-lite0]"
    config = make_workspace(large.folder.parents[2], (64, 64), evaluate__features=features)
    shutil.rmtree(tmp_path)
    statuses = stage_statuses(RunInputs(config))
    assert statuses["train"].state == "fresh"
    assert statuses["evaluate"].state == "stale"
    assert statuses["evaluate"].folder
    with pytest.raises(ConfigError, match=r"evaluate\.features: .*neither a folder"):
        check_run(config)


def test_clip_alone_is_no_part_of_the_identity_of_a_report(config: RunConfig) -> None:
    """The identity of CLIP is that of the encodings, from which the report is made."""
    assert not [name for name in RunInputs(config).settings("evaluate") if "features" in name]


def test_distances_of_few_images_are_left_out_and_the_reason_is_given_once(
    config: RunConfig, report: Manifest
) -> None:
    reason = "no cmmd, kernel_distance, frechet_distance: they need 50 images, and here are 12"
    assert set(report.figures["scores"]).isdisjoint(DISTANCES)
    page = report.file("report.html").read_text()
    assert page.count(reason) == 1
    assert "Distances grow" not in page
    assert "&lt; 20 captions" in page
    track = RememberingTracker()
    report_of(config, force=True, track=track)
    assert track.warnings == [
        f"{reason}; raise evaluate.prompts, or hold more pairs out of training"
    ]


def test_a_report_of_enough_images_has_no_warning(large: Manifest) -> None:
    page = large.file("report.html").read_text()
    assert "they need 50 images" not in page
    assert "Distances grow as the number of" in page


def test_a_model_with_a_flipped_bit_is_not_judged(config: RunConfig) -> None:
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    assert encodings
    assert model
    path = model.file("denoiser.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(
            ManifestError, match=r"denoiser\.safetensors has other content .*catalog verify"
        ):
            load_models(encodings, model, config.evaluate)
    finally:
        path.write_bytes(whole)


def test_time_is_told_but_a_rerun_makes_the_same_output(
    config: RunConfig, report: Manifest
) -> None:
    assert report.figures["timing"]["latency_s"] > 0
    assert "latency_s" not in report.file("metrics.json").read_text()
    assert report.hardware == hardware()
    (reference,) = (config.folder / "references").glob("*.safetensors")
    reference.write_bytes(reference.read_bytes()[:100])  # damaged, it is judged anew
    assert report_of(config, force=True).digest == report.digest


def test_the_reference_is_judged_once_and_demands_point_the_right_way(
    config: RunConfig, report: Manifest
) -> None:
    demands = {
        "clip_score_reference": 9.0,
        "latency_s": 0.0,
        "diversity": 300.0,
        "kernel_distance": -1e9,
    }
    changed = config.evaluate.model_copy(update={"prompts": 2, "require": demands})
    demanding = config.model_copy(update={"evaluate": changed})
    before = set((config.folder / "references").glob("*.safetensors"))
    assert report.rows != 2
    with pytest.raises(StageFailed, match="at least 300 is required") as failed:
        report_of(demanding)
    assert "latency_s is " in str(failed.value)
    assert "at most 0 is required" in str(failed.value)
    assert "kernel_distance is required, but it needs 50 images, and here are 2" in str(
        failed.value
    )
    assert "clip_score_reference" not in str(failed.value)

    (reference,) = (
        set((config.folder / "references").glob("*.safetensors")) - before
    )  # another choice of pairs is another file
    judged = load_judged(reference)
    assert judged
    assert judged.clip_score is not None
    save_judged(
        dataclasses.replace(judged, clip_score=torch.full_like(judged.clip_score, 7.0)), reference
    )
    with pytest.raises(StageFailed, match="clip_score_reference is 7, at least 9 is required"):
        report_of(demanding)


@needs_browser
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_browser_without_network_shows_the_whole_page(
    report: Manifest, tmp_path: Path, width: int
) -> None:
    from playwright.sync_api import expect

    with opened(report.file("report.html"), width, tmp_path) as page:
        for text in ("prompt_accuracy", "diversity", "latency_s", "Worst by CLIP score", "Lineage"):
            expect(page.get_by_text(text).first).to_be_visible()
        for digest in report.parents.values():
            expect(page.get_by_text(digest, exact=True).first).to_be_visible()
        for stage in ("download", "encode", "train", "evaluate"):
            expect(page.get_by_text(f"run-of-{stage}").first).to_be_visible()
        page.locator("summary", has_text="train").click()
        expect(page.get_by_text("warmup_steps: 2")).to_be_visible()
        assert page.locator("figure").count() == 12 + 6 + 4 + 6 + 6 + 6 + 6, (
            "wrong ones, the grid, other seeds, beside the real ones and the nearest ones, best "
            "and worst"
        )
        drawn, hidden = (".upright", ".wide") if width == PHONE else (".wide", ".upright")
        expect(page.locator(f"svg{drawn}")).to_be_visible()
        expect(page.locator(f"svg{hidden}")).to_be_hidden()
        expect(page.locator(f"svg{drawn} desc")).to_contain_text(
            "encode: 40 encodings, of 40 images"
        )
        expect(page.locator(".verdict").first).to_contain_text("samples show all that their")
        assert page.locator("#seeds ~ figure").first.locator("img").count() == 8
        for link in page.locator("nav a").all():
            link.click()
            target = (link.get_attribute("href") or "").removeprefix("#")
            expect(page.locator(f"h2#{target}")).to_be_in_viewport()
        notes = page.locator(
            "h2:text('Best by CLIP score') + .tiles figcaption .note"
        ).all_inner_texts()
        scores = [float(text.split()[-1]) for text in notes]
        assert scores == sorted(scores, reverse=True)


def test_the_page_tells_price_and_command_and_shows_a_sweep_where_there_is_one(
    config: RunConfig, report: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = report.file("report.html").read_text()
    assert 'class="command"' not in page, "which no command made"
    assert "was fresh" not in page
    assert "Total time: " in page
    assert "per\nhour" not in page
    assert "Sampling sweep" not in page
    model = stage_statuses(RunInputs(config))["train"].manifest
    assert model
    folder = Workspace(config.folder).sweep(model.fingerprint)
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "sweep.png")
    priced = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"price_per_hour": 3600.0})}
    )
    assert stage_statuses(RunInputs(priced))["evaluate"].state == "fresh", (
        "a price changes no score"
    )
    monkeypatch.setattr(command_line, "_typed", [])
    remember_command(["run", "tiny", "train.lr=2e-3", "download.urls=https://me:canary@host/<a>"])
    again = report_of(priced, force=True)
    assert again.digest == report.digest
    page = again.file("report.html").read_text()
    assert (
        "tld run tiny train.lr=2e-3 &#39;download.urls=https://host/&lt;a&gt;&#39;</code>" in page
    )
    assert page.count("was fresh") > 3
    assert "made now" in page
    assert "at 3600.0 per\nhour, " in page
    assert "Sampling sweep" in page


@pytest.mark.parametrize("name", ["00000.npz", "00001.parquet"])
def test_encodings_with_a_flipped_bit_are_not_judged(config: RunConfig, name: str) -> None:
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings
    path = encodings.file(name)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        with pytest.raises(ManifestError, match=rf"{name} has other content .*catalog verify"):
            report_of(config, force=True)
    finally:
        path.write_bytes(whole)


def test_one_prompt_has_scores_and_no_interval(config: RunConfig) -> None:
    one = report_of(
        config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"prompts": 1})})
    )
    scores = json.loads(one.file("metrics.json").read_text(), parse_constant=pytest.fail)
    assert scores["clip_score"]["low"] is scores["clip_score"]["high"] is None
    assert "clip_score" in one.figures["scores"]
    assert "clip_score" not in one.figures["intervals"]
    assert "cmmd" not in one.figures["scores"]
    page = re.sub(r"data:[^\"]+", "", one.file("report.html").read_text())
    assert "inf" not in re.findall(r"[a-z]+", page)
    assert "&lt; 20 captions" in page
