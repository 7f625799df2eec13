"""What is said before a run about the checkpoint that it is to continue from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_catalog.model_files import MODEL_FILE
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.checkpoints import checkpoint_of
from pipeline.train.loop import initial_state
from tests.support.small import TINY, small
from tld_model.encoders.names import encoder_identity


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [*small(tmp_path / "data"), *overrides])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of a model of conf/tiny.yaml made small, with a checkpoint after 8 steps."""
    config = config_of(tmp_path)
    state = initial_state(config.train, config.model, "cpu")
    for weight in state.denoiser.parameters():
        weight.grad = torch.ones_like(weight)
    state.optimizer.step()
    state.step = 8
    encoders = {"vae": "shapes-vae", "vae_identity": encoder_identity("shapes-vae")}
    (tmp_path / "base/checkpoints").mkdir(parents=True)
    torch.save(checkpoint_of(state, encoders), tmp_path / "base/checkpoints/step-00000008.pt")
    return tmp_path / "base"


def problems(tmp_path: Path, base: Path, *overrides: str) -> list[str]:
    """What is wrong with continuing from there, without the name of the setting."""
    with pytest.raises(ConfigError) as raised:
        check_run(config_of(tmp_path, f"train.continue_from={base}", *overrides))
    before = "  train.continue_from: "
    lines = str(raised.value).splitlines()[1:]
    return [line.removeprefix(before) for line in lines if line.startswith(before)]


def test_other_data_and_training_settings_may_continue(tmp_path: Path, base: Path) -> None:
    other = ["train.lr=0.002", "train.batch_size=32", "download.limit=90", "train.noise_shift=2"]
    check_run(config_of(tmp_path, f"train.continue_from={base}", *other))
    file = base / "checkpoints/step-00000008.pt"
    check_run(config_of(tmp_path, f"train.continue_from={file}"))


def test_everything_that_does_not_fit_is_named_at_once(tmp_path: Path, base: Path) -> None:
    path = base / "checkpoints/step-00000008.pt"
    assert problems(
        tmp_path,
        base,
        *("model.width=128", "train.optimizer=adamw", "train.ema_decay=[0.99,0.5]"),
        *("train.steps=8", "encode.text_template=a photo of {}"),
        *("model.inpainting=true", "model.latent_size=16", "download.image_size=128"),
        "model.blocks=joint",
    ) == [
        f"model.latent_size is 16, but {path} has 8; set model.latent_size=8, or start from its "
        "weights alone with train.init_from",
        f"model.width is 128, but {path} has 64; set model.width=64",
        f"model.blocks is joint, but {path} has original; set model.blocks=original",
        f"model.inpainting is True, but {path} has False; set model.inpainting=False, or start "
        "from its weights alone with train.init_from",
        f"encode.text_template is 'a photo of {{}}', but {path} has '{{}}'",
        f"train.optimizer is adamw, but {path} has the state of muon; set train.optimizer=muon",
        f"train.ema_decay has 0.5, but {path} has averages of 0.99 only; set "
        "train.ema_decay=[0.99]",
        f"{path} has done 8 steps, and train.steps, which counts them too, is 8; set train.steps "
        "higher",
    ]


def test_a_checkpoint_behind_the_beginning_of_the_decay_is_refused(
    tmp_path: Path, base: Path
) -> None:
    decay = ("train.lr_schedule=constant", "train.warmup_steps=0", "train.decay_steps=5")
    assert problems(tmp_path, base, *decay, "train.steps=12") == [
        f"{base}/checkpoints/step-00000008.pt has done 8 steps, and the decay would have begun at "
        "step 7; set train.steps to at least 13, or train.decay_steps lower"
    ]
    check_run(config_of(tmp_path, *decay, "train.steps=13", f"train.continue_from={base}"))


def test_other_encoders_are_refused(tmp_path: Path, base: Path) -> None:
    path = base / "checkpoints/step-00000008.pt"
    content = torch.load(path, weights_only=True)
    content["encoders"] = {"vae": "another", "vae_identity": "of another"}
    torch.save(content, path)
    assert problems(tmp_path, base) == [
        f"{path}: it was trained on encodings by VAE 'another', but these are by 'shapes-vae'"
    ]


def test_a_checkpoint_of_an_earlier_version_is_compared_by_its_weights(
    tmp_path: Path, base: Path
) -> None:
    path = base / "checkpoints/step-00000008.pt"
    content = torch.load(path, weights_only=True)
    del content["model"], content["encoders"]
    torch.save(content, path)
    check_run(config_of(tmp_path, f"train.continue_from={base}"))
    (problem,) = problems(tmp_path, base, "model.width=128")
    assert problem.startswith(f"{path} is of a model with other settings: ")
    assert problems(tmp_path, base, "model.blocks=joint") == [
        f"model.blocks is joint, but {path} has original; set model.blocks=original"
    ]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _replace_by_a_model(path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_cut, "is damaged, or no checkpoint of a training: File is not a zip file"),
        (_replace_by_a_model, "no checkpoint of a training: it does not contain a training state"),
        (Path.unlink, "has no checkpoint in its folder checkpoints: it is no model's folder, or"),
    ],
)
def test_what_cannot_be_continued_is_said(
    tmp_path: Path, base: Path, change: Callable[[Path], Any], why: str
) -> None:
    change(base / "checkpoints/step-00000008.pt")
    (problem,) = problems(tmp_path, base)
    assert why in problem


def test_what_is_missing_is_told_by_the_check_and_where_it_is_read(
    tmp_path: Path, base: Path
) -> None:
    assert problems(tmp_path, tmp_path / "nowhere") == [
        f"there is no file or folder {tmp_path}/nowhere"
    ]
    (base / "checkpoints/step-00000008.pt").unlink()
    (base / MODEL_FILE).touch()
    assert problems(tmp_path, base)[0].endswith(f"set train.init_from={base}")
    config = config_of(tmp_path, f"train.continue_from={base}")
    with pytest.raises(ConfigError, match=r"train\.continue_from: .* has no checkpoint"):
        RunInputs(config).settings("train")


def test_it_counts_by_content(tmp_path: Path, base: Path) -> None:
    def settings(*overrides: str) -> dict[str, Any]:
        return RunInputs(config_of(tmp_path, *overrides)).settings("train")

    assert "continue_from" not in settings()
    chosen = settings(f"train.continue_from={base}")
    base.rename(tmp_path / "elsewhere")
    assert settings(f"train.continue_from={tmp_path}/elsewhere") == chosen
    assert len(chosen["continue_from"]) == 64
