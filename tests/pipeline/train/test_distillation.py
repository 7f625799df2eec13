"""A distillation teaches a student to take in one step what its teacher takes in several."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_catalog.figures import TEACHER_ERROR, ModelFigures
from data_catalog.model_files import MODEL_FILE
from data_catalog.storage.digests import file_digest
from pipeline.compute.inference import inference_on
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.distillation import Distiller, relative_error
from pipeline.train.loop import initial_state, train_step
from pipeline.train.loss import StepRandomness, step_randomness
from tests.support.command import descendants
from tests.support.tracker import RememberingTracker
from tests.support.training import (
    DISTILLATION,
    MODEL,
    SETTINGS,
    distill_in,
    start_training,
    train_in,
    write_encodings,
)
from tests.support.waiting import wait_while_running
from tld_model.checkpoint import load_denoiser, read_sampling
from tld_model.config import SamplingSettings
from tld_model.diffusion import add_noise
from tld_model.sampler import noise_levels, sample

CONFIG = TrainConfig(**SETTINGS | {"max_loss_weight": 1})


def curved(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    """A teacher whose path is curved: its prediction depends on latent, noise level and text."""
    s, t = sigma[:, None, None, None], text.mean(1)[:, None, None, None]
    return (noisy * (1 - s)).tanh() + t * s.square()


def batch_of(count: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, 4, 4, 4, generator=generator)
    return Batch(latents, torch.randn(count, 8, generator=generator))


def at_level(count: int, level: float) -> StepRandomness:
    choices = step_randomness(CONFIG, MODEL, count, step=0)
    return replace(choices, sigma=torch.full((count,), level))


class OneStep:
    """A student that predicts what a whole sample of the teacher leads to."""

    def __init__(self, predict: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.predict = predict
        self.sigma: Tensor | None = None

    def __call__(self, noisy: Tensor, sigma: Tensor, text: Tensor, _known: None) -> Tensor:
        self.sigma = sigma
        return self.predict(noisy, text)


def test_the_target_of_a_single_segment_is_the_sample_of_the_teacher() -> None:
    """With one segment the path is that of the sampler, dpmpp_2m, which has levels of its own."""
    steps, batch, choices = 6, batch_of(4), at_level(4, 0.3)
    levels = [0.99 * (1 - step / steps) for step in range(steps)]

    def teachers_sample(noisy: Tensor, text: Tensor) -> Tensor:
        return sample("dpmpp_2m", curved, noisy, text, levels)

    student = OneStep(teachers_sample)
    losses = Distiller(curved, 1, steps).per_pair_loss(student, MODEL, batch, choices, CONFIG)
    assert losses.shape == (4,)
    assert losses.max() < 1e-10
    assert student.sigma is not None
    torch.testing.assert_close(student.sigma, torch.full((4,), 0.99))


@pytest.mark.parametrize(("level", "start"), [(1.0, 0.99), (0.6, 0.99), (0.5, 0.5), (1e-4, 0.5)])
def test_a_noise_level_chooses_its_segment(level: float, start: float) -> None:
    student = OneStep(lambda noisy, _text: noisy)
    Distiller(curved, 2, 4).per_pair_loss(student, MODEL, batch_of(4), at_level(4, level), CONFIG)
    assert student.sigma is not None
    torch.testing.assert_close(student.sigma, torch.full((4,), start))


def test_steps_of_a_student_without_error_end_where_those_of_the_teacher_do() -> None:
    """Euler's steps with the targets as predictions follow the teacher from segment to segment."""
    distiller, batch = Distiller(curved, 4, 96), batch_of(4)
    noise = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    def perfect(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        start = sigma.to(noisy)
        start, end = distiller._segments(start)
        return distiller._target(noisy, text, start, end)

    few = sample("euler", perfect, noise, batch.text, noise_levels(4))
    many = sample("dpmpp_2m", curved, noise, batch.text, noise_levels(96))
    torch.testing.assert_close(few, many, rtol=0, atol=5e-3)
    samples = distiller.samples(noise, batch.text, inference_on("cpu", "fp32"))
    torch.testing.assert_close(samples, many)
    assert relative_error(few, many) < 5e-3


def test_the_losses_of_parts_are_those_of_the_whole_batch() -> None:
    batch, choices = batch_of(8), step_randomness(CONFIG, MODEL, 8, step=3)
    distiller = Distiller(curved, 4, 8)

    def student(noisy: Tensor, sigma: Tensor, _text: Tensor, _known: None) -> Tensor:
        return noisy * sigma[:, None, None, None]

    whole = distiller.per_pair_loss(student, MODEL, batch, choices, CONFIG)
    parts = [
        distiller.per_pair_loss(
            student, MODEL, Batch(batch.latents[part], batch.text[part]), choices.rows(part), CONFIG
        )
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_step_trains_the_student_towards_the_teachers_path() -> None:
    state, batch = initial_state(CONFIG, MODEL, "cpu"), batch_of(8)
    state.loss = Distiller(curved, 2, 6).per_pair_loss
    losses = [
        float(train_step(state, batch, step_randomness(CONFIG, MODEL, 8, step=0), CONFIG).loss)
        for _ in range(30)
    ]
    assert losses[-1] < losses[0] / 2


def test_pairs_are_noised_up_to_the_segment() -> None:
    """The student sees the latent at the start of its segment, not at the chosen level."""
    batch, choices = batch_of(4), at_level(4, 0.3)
    noisy: list[Tensor] = []

    def student(x: Tensor, _sigma: Tensor, _text: Tensor, _known: None) -> Tensor:
        noisy.append(x)
        return x

    Distiller(curved, 2, 4).per_pair_loss(student, MODEL, batch, choices, CONFIG)
    torch.testing.assert_close(
        noisy[0], add_noise(batch.latents, choices.noise, torch.full((4,), 0.5))
    )


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with encodings and a trained model."""
    folder = tmp_path_factory.mktemp("taught")
    write_encodings(folder / "encodings")
    train_in(folder, RememberingTracker())
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    for name in ("encodings", "model"):
        (to / name).symlink_to(folder / name)
    return to


@pytest.mark.slow
def test_a_distilled_model_is_nearer_to_its_teacher_and_says_how_it_samples(
    taught: Path, tmp_path: Path
) -> None:
    track = RememberingTracker()
    output = distill_in(copy_of(taught, tmp_path), track)
    file = tmp_path / "distilled" / MODEL_FILE
    assert output.shards[0].digest == file_digest(file)
    assert read_sampling(file) == SamplingSettings(2, 1.0, "euler")
    assert read_sampling(taught / "model" / MODEL_FILE) is None
    errors = [values[TEACHER_ERROR] for _, values in track.heard if TEACHER_ERROR in values]
    assert len(errors) == 10, "after each tenth of the steps"
    assert errors[-1] < errors[0]
    assert ModelFigures.model_validate(output.figures).losses == {TEACHER_ERROR: errors[-1]}
    assert not any("held_out_loss" in values for _, values in track.heard)
    teacher, student = (
        load_denoiser(path, "cpu") for path in (taught / "model" / MODEL_FILE, file)
    )
    assert teacher.config == student.config


@pytest.mark.slow
def test_a_killed_distillation_goes_on_to_the_same_bits(taught: Path, tmp_path: Path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    expected = distill_in(copy_of(taught, tmp_path / "undisturbed"), RememberingTracker())
    killed = copy_of(taught, tmp_path / "killed")
    process = start_training(killed, "distill")
    log = killed / "distilled/events.jsonl"
    wait_while_running(lambda: log.exists() and '"step": 10' in log.read_text(), process)
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "distilled" / MODEL_FILE).exists()
    track = RememberingTracker()
    assert distill_in(killed, track).shards[0].digest == expected.shards[0].digest
    assert max(step for step, values in track.heard if "loss" in values) == DISTILLATION["steps"]


@pytest.mark.slow
def test_two_processes_distill_as_one_does(taught: Path, tmp_path: Path) -> None:
    curves = []
    for name, processes in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        track = RememberingTracker()
        distill_in(copy_of(taught, tmp_path / name), track, launch={"processes": processes})
        curves.append({step: v["loss"] for step, v in track.heard if "loss" in v})
    assert len(curves[0]) == 10
    assert curves[0] == pytest.approx(curves[1], abs=1e-6)
    assert json.loads((tmp_path / "two/distilled/job.json").read_text())["distillation"]
