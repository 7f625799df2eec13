"""What a run says of its distillation completes what it says of training and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
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
        assert of_distilled.registered_name == "tiny-distilled"
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
        (["distill.sample_steps=3"], "teacher_steps 20 is not a multiple of sample_steps 3"),
        (["distill={}", "model.inpainting=true"], "distill: cannot distill a model with"),
        (["distill.ema=1"], "distill.ema: there is no average 1"),
        (["distill.require={accuracy: 1}"], "distill.require: no such score: accuracy"),
        (
            ["distill.require={frechet_distance/dinov2: 1}"],
            "distill.require: frechet_distance/dinov2 needs dinov2 in evaluate.features",
        ),
        (["distill.step=3"], "distill.step: no such setting; did you mean 'steps'?"),
        (["distill=4"], "distill: "),
    ],
)
def test_what_makes_no_sense_is_told(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(Path("tiny"), overrides)
    assert says in str(refused.value)
