"""The best average: which step has it, which files stay, and that neither a kill, a resume nor a
continuation changes it."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from data_catalog.model_files import average_file, best_path
from data_catalog.storage.digests import file_digest
from data_catalog.storage.manifest import ManifestError
from pipeline.compute.ranks import ALONE
from pipeline.config.score import ScoreConfig
from pipeline.config.train import TrainConfig
from pipeline.evaluate.held_out_samples import load_models
from pipeline.export.model_card import model_card
from pipeline.generate.model_source import source_of_run
from pipeline.stages.contract import Output, StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.best_average import BestAverage, NoSuchScore, link_best_average
from pipeline.train.checkpoints import CheckpointNotRead
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState, initial_state
from tests.support.command import descendants
from tests.support.continued import CONSTANT, finish_training, training
from tests.support.finished import finish
from tests.support.small import small
from tests.support.tracker import RememberingTracker
from tests.support.training import MODEL, SETTINGS, start_training, train_in, write_encodings
from tests.support.waiting import wait_while_running
from tld_model.training_state import DamagedState

SCORE: dict[str, Any] = {"every": 3, "prompts": 8, "best_by": "clip_score"}


def job_in(out: Path, best_by: str = "clip_score") -> TrainJob:
    config = TrainConfig(**SETTINGS, score=ScoreConfig(every=2, best_by=best_by))
    return TrainJob(encodings=out, out=out, config=config, model=MODEL, device="cpu")


class Scored:
    """A training that scores, of which the weights are its step."""

    def __init__(self, out: Path, best_by: str = "clip_score") -> None:
        self.best = BestAverage(job_in(out, best_by), ALONE, {})
        self.state: TrainState = initial_state(self.best.job.config, MODEL, "cpu")
        self.events: list[dict[str, Any]] = []

    def score(self, step: int, value: float, *checkpoints: int) -> bool:
        self.state.step = step
        weight = next(self.state.ema.parameters())
        weight.requires_grad_(False).fill_(step)
        values = {self.best.score: value}
        best = self.best.offer(self.state, values, lambda: checkpoints)
        self.events.append({"kind": "metrics", "step": step, "values": values, "best": best})
        return best is not None

    def steps_of_files(self) -> list[int]:
        paths = self.best.job.checkpoints.glob("best-*.safetensors")
        return sorted(int(path.stem.removeprefix("best-")) for path in paths)


def test_the_first_of_equal_values_is_the_best_in_either_direction(tmp_path: Path) -> None:
    higher = Scored(tmp_path / "higher")
    lower = Scored(tmp_path / "lower", "held_out_loss")
    for one in (higher, lower):
        one.best.job.out.mkdir()
    values = {2: math.nan, 4: 3.0, 6: 3.0, 8: 5.0, 10: math.nan, 12: 4.0, 14: 2.0}
    assert [step for step, value in values.items() if higher.score(step, value)] == [2, 4, 8]
    assert [step for step, value in values.items() if lower.score(step, value)] == [2, 4, 14]
    figures = higher.best.finish([])
    assert (figures.score, figures.step, figures.value) == ("clip_score", 8, 5.0)
    model = higher.best.job.out / average_file("best")
    assert file_digest(model) == file_digest(best_path(higher.best.job.checkpoints, 8))


def test_the_best_until_each_checkpoint_stays_and_others_go(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    scored.score(2, 1)
    scored.score(4, 2)
    assert scored.steps_of_files() == [4], "there is no checkpoint yet"
    scored.score(6, 3, 5)
    scored.score(8, 4, 5)
    assert scored.steps_of_files() == [4, 8], "a training may resume at step 5"
    scored.score(10, 3, 9)
    assert scored.steps_of_files() == [4, 8], "only a better one removes others"
    scored.score(12, 5, 5, 9)
    assert scored.steps_of_files() == [4, 8, 12]
    scored.best.finish([9, 12])
    assert scored.steps_of_files() == [8, 12]


def test_after_a_kill_the_best_until_the_checkpoint_counts(tmp_path: Path) -> None:
    """Steps that are repeated may score otherwise on a GPU."""
    killed = Scored(tmp_path)
    killed.score(2, 1)
    killed.score(4, 7, 3)
    resumed = Scored(tmp_path)
    resumed.best.resume(killed.events[:1])
    assert not resumed.score(4, 0.5, 3)
    assert resumed.best.finish([3]).step == 2
    again = Scored(tmp_path)
    again.best.resume(killed.events[:1] + resumed.events)
    best_path(tmp_path / "checkpoints", 2).write_bytes(b"damaged")
    with pytest.raises(CheckpointNotRead, match="of step 2"):
        again.best.finish([])
    with pytest.raises(CheckpointNotRead, match=r"train … --force"):
        Scored(tmp_path).best.resume(killed.events[:1])


def test_a_score_that_nothing_computed_is_named(tmp_path: Path) -> None:
    graded = Scored(tmp_path, "prompt_accuracy")
    with pytest.raises(NoSuchScore, match="scores of step 0 lack it; they are clip_score"):
        graded.best.offer(graded.state, {"clip_score": 1}, list)


def test_a_continued_training_takes_the_best_of_its_own_scored_steps(tmp_path: Path) -> None:
    """The last step of a shorter training is a scored one of that alone."""
    shorter, longer = Scored(tmp_path / "shorter"), tmp_path / "longer"
    shorter.best.job.out.mkdir()
    (longer / "checkpoints").mkdir(parents=True)
    for step, value in ((2, 1.0), (4, 2.0), (5, 3.0)):
        shorter.score(step, value, 4)
    lines = "".join(json.dumps(event) + "\n" for event in shorter.events)
    (longer / "events.before.jsonl").write_text(lines)
    config = shorter.best.job.config
    link_best_average(config, shorter.best.job.out, longer)
    assert [path.name for path in (longer / "checkpoints").iterdir()] == [
        "best-00000004.safetensors"
    ]
    best_path(shorter.best.job.checkpoints, 4).write_bytes(b"damaged")
    with pytest.raises(DamagedState, match="best-00000004"):
        link_best_average(config, shorter.best.job.out, longer)
    best_path(shorter.best.job.checkpoints, 4).unlink()
    with pytest.raises(FileNotFoundError):
        link_best_average(config, shorter.best.job.out, longer)


def scored_steps(folder: Path) -> list[int]:
    try:
        lines = (folder / "model/events.jsonl").read_text().splitlines()
    except FileNotFoundError:  # a process that starts moves it away
        return []
    return [json.loads(line)["step"] for line in lines if '"best"' in line and line.endswith("}")]


def curves(track: RememberingTracker) -> dict[str, dict[int, float]]:
    names = ("clip_score", "held_out_loss", "loss")
    return {name: {s: v[name] for s, v in track.heard if name in v} for name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Output]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    write_encodings(folder / "encodings")
    return folder, train_in(folder, RememberingTracker(), score=SCORE)


@pytest.mark.slow
def test_scores_disturb_no_weights_and_the_best_is_that_of_the_curve(
    undisturbed: tuple[Path, Output], tmp_path: Path
) -> None:
    output = undisturbed[1]
    write_encodings(tmp_path / "run/encodings")
    track = RememberingTracker()
    plain = train_in(tmp_path / "run", track, score={"every": 3, "prompts": 8})
    assert list(plain.shards[0].files) == ["denoiser.safetensors"]
    model = output.shards[0].files
    assert model["denoiser.safetensors"] == plain.shards[0].files["denoiser.safetensors"]
    curve = curves(track)["clip_score"]
    assert list(curve) == [3, 6, 9, 12, 15, 18, 20]
    assert list(curves(track)["held_out_loss"]) == [3, 5, 6, 9, 10, 12, 15, 18, 20]
    best = max(curve, key=lambda step: curve[step])
    assert output.figures["best"] == {"score": "clip_score", "step": best, "value": curve[best]}
    assert any("scoring step 3: 8 of 8 samples" in note for _, _, note in track.shown)
    assert "best" not in plain.figures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("best_by", "checkpoint_every"),
    [("held_out_loss", 4), ("clip_score", 1000)],  # the last step is the best, or the first
)
def test_kill_9_after_any_scoring_leaves_the_bits_of_the_best(
    tmp_path: Path, best_by: str, checkpoint_every: int
) -> None:
    folder, other = tmp_path / "run", tmp_path / "undisturbed"
    settings: dict[str, Any] = {"score": SCORE | {"best_by": best_by}}
    for path in (folder, other):
        write_encodings(path / "encodings")
    undisturbed = train_in(other, RememberingTracker(), **settings)
    settings["checkpoint_every"] = checkpoint_every
    for step in (3, 9, 15):
        process = start_training(folder, **settings)
        wait_while_running(lambda step=step: step in scored_steps(folder), process)  # type: ignore[misc]
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    track = RememberingTracker()
    output = train_in(folder, track, **settings)
    assert output.shards[0].files == undisturbed.shards[0].files
    assert output.figures["best"] == undisturbed.figures["best"]
    assert list(curves(track)["clip_score"]) == [3, 6, 9, 12, 15, 18, 20]


@pytest.mark.slow
def test_a_stop_interrupts_a_scoring_which_the_next_process_makes_up_for(
    undisturbed: tuple[Path, Output], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_encodings(folder / "encodings")
    process = start_training(folder, score=SCORE, checkpoint_every=1000)
    wait_while_running(lambda: 3 in scored_steps(folder), process)
    os.kill(descendants(process.pid)[-1], signal.SIGTERM)
    process.communicate(timeout=120)
    assert list((folder / "model/checkpoints").glob("step-*.pt"))
    output = train_in(folder, RememberingTracker(), score=SCORE)
    assert output.shards[0].files == undisturbed[1].shards[0].files


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"sharding": "fsdp"}])
def test_two_processes_score_as_one(
    undisturbed: tuple[Path, Output], tmp_path: Path, more: dict[str, Any]
) -> None:
    folder, track = tmp_path / "run", RememberingTracker()
    write_encodings(folder / "encodings")
    output = train_in(folder, track, score=SCORE, launch={"processes": 2}, **more)
    assert output.figures["best"]["step"] == undisturbed[1].figures["best"]["step"]
    expected = pytest.approx(undisturbed[1].figures["best"]["value"], abs=0.05)
    assert output.figures["best"]["value"] == expected
    assert "denoiser-best.safetensors" in output.shards[0].files


@pytest.mark.slow
def test_a_damaged_best_average_stops_the_training_with_advice(tmp_path: Path) -> None:
    write_encodings(tmp_path / "run/encodings")
    train_in(tmp_path / "run", RememberingTracker(), score=SCORE)
    for path in (tmp_path / "run/model/checkpoints").glob("best-*"):
        path.write_bytes(b"damaged")
    with pytest.raises(StageFailed, match="the best average until now, of step"):
        train_in(tmp_path / "run", RememberingTracker(), score=SCORE)


@pytest.mark.slow
def test_the_best_average_is_evaluated_when_asked_for(tmp_path: Path) -> None:
    score = {"train__score__every": 4, "train__score__prompts": 4}
    chosen = {"train__score__best_by": "held_out_loss", "evaluate__ema": "best"}
    few = {"download__limit": 40, "evaluate__prompts": 2, "train__lr": 0.3, **score, **chosen}
    config = finish(small(tmp_path, **few))
    statuses = stage_statuses(RunInputs(config))
    encodings, model = statuses["encode"].manifest, statuses["train"].manifest
    report = statuses["evaluate"].manifest
    assert encodings
    assert model
    assert report
    assert list(model.shards[0].files) == ["denoiser.safetensors", "denoiser-best.safetensors"]
    best = model.figures["best"]
    assert best["step"] < model.figures["steps"], "such a learning rate makes it worse"
    assert report.figures["scores"]["held_out_loss"] == pytest.approx(best["value"])
    assert best["value"] < model.figures["held_out_loss"]
    source = source_of_run("tiny", encodings, model, "best")
    assert source.denoiser == model.folder / "denoiser-best.safetensors"
    card = model_card(encodings, model, report, "tiny")
    assert f"best average: step {best['step']}, held_out_loss" in card
    assert "These weights are that average." in card
    path = model.file("denoiser-best.safetensors")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ManifestError, match="denoiser-best"):
        load_models(encodings, model, config.evaluate)


@pytest.mark.slow
def test_a_longer_training_has_the_best_average_of_one_from_the_start(tmp_path: Path) -> None:
    encodings = write_encodings(tmp_path / "encodings").folder
    settings = ("train.score.every=7", "train.score.prompts=8", "train.score.best_by=clip_score")
    for shorter, decay in ((20, 4), (24, 0)):
        root = tmp_path / f"root{decay}"
        first = training(
            encodings,
            root,
            CONSTANT,
            f"train.decay_steps={decay}",
            f"train.steps={shorter}",
            *settings,
        )
        finish_training(first, RememberingTracker())
        longer = (CONSTANT, "train.decay_steps=4", "train.steps=40", *settings)
        track = RememberingTracker()
        continued = finish_training(training(encodings, root, *longer), track)
        anew = finish_training(
            training(encodings, tmp_path / f"fresh{decay}", *longer), RememberingTracker()
        )
        assert "need not be repeated" in track.notes[0]
        assert continued.figures["best"] == anew.figures["best"]
        assert continued.digest == anew.digest
