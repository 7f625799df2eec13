"""What a run says of its distillation completes what it says of training and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.tracking.logged_model import registered_name
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.config.train import TrainConfig
from tests.support.small import TINY
from tld_model.config import SamplingSettings


def run(*overrides: str) -> RunConfig:
    return load_config(TINY, overrides)


def test_a_run_distills_only_if_it_says_so() -> None:
    assert run().distill is None
    assert run().variants == (run(),)
    assert run("distill={}").distill


def test_what_distill_leaves_open_is_that_of_evaluate() -> None:
    config = run(
        "distill={}", "evaluate.guidance=2", "evaluate.ema=1", "train.ema_decay=[0.9,0.99]"
    )
    assert config.distill
    assert (config.distill.guidance, config.distill.ema) == (2, 1)
    config = run("distill.guidance=5", "evaluate.guidance=2")
    assert config.distill
    assert config.distill.guidance == 5


@pytest.mark.parametrize(("sample_steps", "teacher_steps"), [(1, 20), (3, 21), (4, 20), (8, 24)])
def test_the_teacher_takes_about_twenty_steps(sample_steps: int, teacher_steps: int) -> None:
    config = run(f"distill.sample_steps={sample_steps}")
    assert config.distill
    assert config.distill.teacher_steps == teacher_steps


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.noise_levels=logit_normal", "train.noise_location=0.5"],
        ["train.lr_schedule=constant", "train.decay_steps=300"],
        ["train.optimizer=adamw", "train.sharding=fsdp", "train.launch.nodes=2"],
        ["train.optimizer=adamw", "train.sharding=fsdp", "train.launch.processes=2"],
        ["train.loss_weight=snr", "train.max_loss_weight=5"],
        ["train.score.every=100", "train.score.best_by=prompt_accuracy", "evaluate.ema=best"],
        ["train.ema_warmup=false", "train.contrastive=0.05", "train.accumulate=2"],
    ],
)
def test_every_way_to_train_can_be_distilled(overrides: list[str]) -> None:
    """The settings are valid before the run, and again where the stage sends them to processes."""
    if "train.launch.nodes=2" in overrides:
        overrides = [*overrides, "train.launch.rendezvous=here:29400"]
    config = run("distill.steps=200", *overrides)
    assert config.distill
    training = config.distill.training(config.train)
    assert TrainConfig.model_validate_json(training.model_dump_json()) == training
    assert (training.ema_warmup, training.score.every, training.launch.nodes) == (True, 0, 1)
    assert training.warmup_steps == 10
    assert {training.checkpoint_every, training.validate_every, training.sample_every} == {20}


def test_a_run_is_the_same_after_it_was_written_and_read() -> None:
    """As `tld deploy` and `tld config` do."""
    for config in (run("distill={}"), run("distill={}", "evaluate.model=distilled")):
        again = RunConfig.model_validate(config.model_dump(mode="json"))
        for section in ("train", "distill", "evaluate"):
            assert getattr(again, section).model_dump() == getattr(config, section).model_dump()
        assert again.distill
        assert again.distill.guidance == 2, "of the teacher, not of the distilled model"


def test_a_distilled_model_is_evaluated_as_it_samples() -> None:
    changed = ("distill.sample_steps=2", "distill.require={prompt_accuracy: 0.5}")
    config = run(*changed, "evaluate.steps=20", "evaluate.guidance=2")
    for of_distilled in (
        config.distilled,
        run(*changed, "evaluate.guidance=2", "evaluate.model=distilled"),
    ):
        assert of_distilled.evaluate.sampling == SamplingSettings(2, 1.0, "euler")
        assert of_distilled.evaluate.require == {"prompt_accuracy": 0.5}
        assert of_distilled.model_stage == "distill"
        assert registered_name(of_distilled) == "tiny-distilled"
        assert of_distilled.distill
        assert of_distilled.distill.guidance == 2, "of the teacher"
    assert config.evaluate.sampling.steps == 20
    assert config.model_stage == "train"
    assert len(config.variants) == 2
    assert len(config.distilled.variants) == 1


def test_it_trains_as_the_run_does_but_alone_and_at_all_noise_levels() -> None:
    config = run(
        *("distill.steps=7", "train.optimizer=muon", "train.lr=4e-3", "train.batch_size=48"),
        *("train.init_from=some.safetensors", "train.noise_alpha=2", "train.condition_dropout=0.3"),
        *("train.launch.nodes=2", "train.launch.rendezvous=here:2940", "train.launch.processes=3"),
    )
    assert config.distill
    training = config.distill.training(config.train)
    assert (training.steps, training.lr, training.batch_size) == (7, 2e-3, 48)
    assert (training.optimizer, training.noise_alpha, training.noise_beta) == ("muon", 1, 1)
    assert (training.init_from, training.condition_dropout) == (None, 0)
    assert (training.launch.nodes, training.launch.processes) == (1, 3)
    given = run("distill.lr=1e-5")
    assert given.distill
    assert given.distill.training(given.train).lr == 1e-5


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["evaluate.model=distilled"], "evaluate.model: is distilled, but this run has no section"),
        (
            ["distill.sample_steps=8", "distill.teacher_steps=20"],
            "teacher_steps 20 is not a multiple of sample_steps 8; set teacher_steps=24",
        ),
        (["distill={}", "evaluate.guidance_interval=[0, 0.5]"], "distill: the teacher is guided"),
        (["distill.ema=first"], "distill.ema: give the number of an average, counted from 0"),
        (["distill={}", "model.inpainting=true"], "distill: cannot distill a model with"),
        (["distill.ema=1"], "distill.ema: there is no average 1"),
        (["distill.require={accuracy: 1}"], "distill.require: no such score: accuracy"),
        (
            ["distill.require={frechet_distance/dinov2: 1}"],
            "distill.require: frechet_distance/dinov2 needs dinov2 in evaluate.features",
        ),
        (["distill.step=3"], "distill.step: no such setting; did you mean 'steps'?"),
        (["distill=true"], "distill: takes settings, for example {sample_steps: 4}"),
    ],
)
def test_what_makes_no_sense_is_told(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(Path("tiny"), overrides)
    assert says in str(refused.value)
