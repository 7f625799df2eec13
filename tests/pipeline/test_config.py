import re
from pathlib import Path

import pytest
import torch

from pipeline.config import ConfigError, load_config
from pipeline.optimizers import learning_rate
from pipeline.step_loss import largest_weight, noise_quantile
from tld_model.denoiser import Denoiser

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", ["tiny.yaml", "tld-100m.yaml"])
def test_the_configs_that_ship_are_valid(name: str) -> None:
    assert load_config(CONF / name).name == name.removesuffix(".yaml")


def test_overrides_change_single_settings() -> None:
    config = load_config(CONF / "tiny.yaml", ["train.lr=3e-4", "download.limit=7", "encode.vae=a/b", "root=elsewhere"])
    assert (config.train.lr, config.download.limit, config.encode.vae) == (3e-4, 7, "a/b")
    assert config.folder == Path("elsewhere")
    assert config.train.batch_size == load_config(CONF / "tiny.yaml").train.batch_size


def test_all_problems_are_told_at_once_with_suggestions_and_values() -> None:
    overrides = [
        "download.urlz=x",
        "train.batch_size=0",
        "train.lr=fast",
        "evaluate.require=[1]",
        "model.patch_size=3",
        "nonsense",
        "name.first=x",
    ]
    with pytest.raises(ConfigError) as told:
        load_config(CONF / "tiny.yaml", overrides)
    message = str(told.value)
    for expected in (
        "download.urlz: no such setting; did you mean 'urls'?",
        "train.batch_size: Input should be greater than or equal to 1, got 0",
        "train.lr: Input should be a valid number, unable to parse string as a number, got 'fast'",
        "evaluate.require: Input should be a valid dictionary, got [1]",
        "model: patch_size 3 does not divide latent_size 8",
        "nonsense: an override looks like section.key=value",
        "name.first: 'name' is a value, not a section",
    ):
        assert expected in message


def test_the_default_recipe_is_that_of_the_published_model() -> None:
    config = load_config(CONF / "tld-100m.yaml")
    with torch.device("meta"):
        denoiser = Denoiser(config.model)
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 101_164_352
    train = config.train
    assert (train.batch_size, train.lr, train.warmup_steps, train.ema_decay) == (256, 3e-4, 1000, (0.999,))
    assert [learning_rate(train, step) for step in (0, 499, 999)] == pytest.approx([3e-7, 1.5e-4, 3e-4])
    assert config.model.predicts == "x0"
    assert largest_weight(train, config.model) == 1, "the plain squared error of x0"
    levels = noise_quantile(train)(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    beta = 1 - (1 - torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)) ** (1 / 2.5)  # quantiles of Beta(1, 2.5)
    torch.testing.assert_close(levels, beta, rtol=0, atol=1e-4)
    assert (train.noise_shift, train.condition_dropout, train.contrastive) == (1, 0.15, 0)


def test_options_that_make_no_sense_together_are_told() -> None:
    wrong = {
        "train.accumulate=3": "train: batch_size 64 does not divide into 3 (accumulate) × 1 (nodes) × 1 (processes)",
        "train.noise_scale=2": "train: noise_location and noise_scale belong to noise_levels=logit_normal",
        "train.loss_weight=snr": None,  # conf/tiny.yaml has a bound
        "train.ema_decay=[0.9, 0.9]": "train.ema_decay: give one decay, or several that differ",
        "train.ema_decay=[0.9, 2]": "train.ema_decay.1: Input should be less than 1, got 2",
        "evaluate.ema=1": "evaluate.ema: there is no average 1; train.ema_decay has 1",
        "train.clip_norm=.inf": "train.clip_norm: Input should be a finite number, got inf",
    }
    for override, says in wrong.items():
        if says:
            with pytest.raises(ConfigError, match=re.escape(says)):
                load_config(CONF / "tiny.yaml", [override])
        else:
            load_config(CONF / "tiny.yaml", [override])
    both = ["train.loss_weight=snr", "train.max_loss_weight=null", "train.contrastive=0.05", "train.batch_size=63"]
    with pytest.raises(ConfigError) as told:
        load_config(CONF / "tiny.yaml", both)
    for says in ("an even number of pairs, which contrastive needs", "loss_weight=snr needs max_loss_weight"):
        assert says in str(told.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config file at"),
        ("a: [", "is not valid YAML"),
        ("- a", "must hold sections"),
        ("name: x", "download: is missing"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        load_config(path)
