import pickle
import re
from pathlib import Path

import pytest
import torch

from pipeline.config.download import DownloadConfig
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.train.loss import largest_weight, noise_quantile
from pipeline.train.optimizers import learning_rate
from tests.support.command import REPOSITORY
from tld_model.denoiser import Denoiser

CONF = REPOSITORY / "conf"


@pytest.mark.parametrize(
    "name", ["tiny", "short-prompts", "emoji", "tld-100m", "original-100m", "modern-250m"]
)
def test_the_configs_that_ship_are_valid(name: str) -> None:
    assert load_config(CONF / f"{name}.yaml").name == name


def test_overrides_change_single_settings() -> None:
    config = load_config(
        CONF / "tiny.yaml",
        ["train.lr=3e-4", "download.limit=7", "encode.vae=a/b", "root=elsewhere"],
    )
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
    with pytest.raises(ConfigError) as raised:
        load_config(CONF / "tiny.yaml", overrides)
    message = str(raised.value)
    for expected in (
        "download.urlz: no such setting; did you mean 'urls'?",
        "train.batch_size: Input should be greater than or equal to 1, got 0",
        "train.lr: Input should be a valid number, unable to parse string as a number, got 'fast'",
        "evaluate.require: Input should be a valid dictionary, got [1]",
        "model: patch_size 3 does not divide latent_size 8",
        "nonsense: is not an override; write section.key=value",
        "name.first: 'name' is a value, not a section",
    ):
        assert expected in message


def test_the_original_recipe_is_that_of_the_published_model() -> None:
    config = load_config(CONF / "original-100m.yaml")
    with torch.device("meta"):
        denoiser = Denoiser(config.model)
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 101_164_352
    train = config.train
    assert (train.steps, train.batch_size, train.lr, train.warmup_steps) == (
        260_000,
        256,
        3e-4,
        1000,
    )
    assert (train.optimizer, train.weight_decay, train.beta2) == ("adamw", 0, 0.999), "Adam"
    assert (train.ema_decay, train.ema_warmup) == ((0.999,), False)
    assert [learning_rate(train, step) for step in (0, 499, 999, 259_999)] == pytest.approx(
        [3e-7, 1.5e-4, 3e-4, 3e-4]
    )
    assert config.model.predicts == "x0"
    assert largest_weight(train, config.model) == 1, "the plain squared error of x0"
    levels = noise_quantile(train)(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    beta = 1 - (1 - torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)) ** (
        1 / 2.5
    )  # quantiles of Beta(1, 2.5)
    torch.testing.assert_close(levels, beta, rtol=0, atol=1e-4)
    assert (train.noise_shift, train.condition_dropout, train.contrastive) == (1, 0.15, 0)


def test_options_that_make_no_sense_together_are_told() -> None:
    wrong = {
        "train.accumulate=3": "train: batch_size 64 does not divide into 3 (accumulate) × 1 (nodes) × 1 (processes)",
        "train.noise_scale=2": "train: noise_location and noise_scale apply only to noise_levels=logit_normal",
        "train.loss_weight=snr": None,  # conf/tiny.yaml has a bound
        "train.decay_steps=9": "train: decay_steps is 9, but lr_schedule=cosine falls to zero by itself; set lr_schedule=constant",
        "train.ema_decay=[0.9, 0.9]": "train.ema_decay: give one decay, or several different ones",
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
    both = [
        "train.loss_weight=snr",
        "train.max_loss_weight=null",
        "train.contrastive=0.05",
        "train.batch_size=63",
        "train.lr_schedule=constant",
        "train.decay_steps=1401",
        "train.init_from=one",
        "train.continue_from=another",
    ]
    with pytest.raises(ConfigError) as raised:
        load_config(CONF / "tiny.yaml", both)
    for says in (
        "an even number of pairs, which contrastive needs",
        "loss_weight=snr needs max_loss_weight",
        "warmup_steps 100 and decay_steps 1401 are more than steps 1500",
        "continue_from and init_from both give the first weights; remove one of them",
    ):
        assert says in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config file at"),
        ("a: [", "is not valid YAML"),
        ("- a", "must contain sections"),
        ("name: x", "download: is missing"),
        (
            "train:\n  steps: 5\nname: x\ntrain:\n  lr: 1",
            "line 4: train is set twice, in lines 1 and 4; keep one",
        ),
        ("train: {lr: 1, steps: 2, lr: 3}", "lr is set twice, in lines 1 and 1"),
        ("1: x", "line 1: the name of a setting must be text; put 1 in quotes"),
        ("a: &b [1]\nc: *b", "line 2: anchors and aliases are not supported"),
        ("a: !!python/name:os.system", "line 1: tags, as in !!int, are not supported"),
        ("[" * 100_000, "line 1: nested more than 20 levels deep"),
        ("- " * 100_000, "line 1: nested more than 20 levels deep"),
        ("a: b\nc: d: e", "line 2: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("#" * (1 << 20) + "\n", "is larger than 1 MB"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        load_config(path)


def test_a_config_is_read_in_the_encoding_that_its_editor_chose(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    text = (CONF / "tiny.yaml").read_text(encoding="utf-8") + "# größer\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert load_config(path) == load_config(CONF / "tiny.yaml")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(
        ConfigError, match=r"x\.yaml is not UTF-8 text \(byte 0xf6 in line \d+\); save it as UTF-8"
    ):
        load_config(path)


def test_text_is_text_and_numbers_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 takes `no` for false, 010 for 8, 12:30:00 for a number and 2024-01-01 for a date."""
    path = tmp_path / "x.yaml"
    for name in ("no", "on", "010", "0x10", "2024-01-01", "1_000", "'7'", '"1e3"'):
        path.write_text(f"name: {name}\ndownload: {{urls: 12:30:00}}", encoding="utf-8")
        config = load_config(path, [f"root={name}/a #1: b", "train.lr=3e-4", "train.steps=1e3"])
        assert config.name == name.strip("'\"")
        assert config.download.urls == "12:30:00"
        assert (config.train.lr, config.train.steps) == (3e-4, 1000)
        if name[0] not in "'\"":
            assert config.root == f"{name}/a #1: b"
    for name in ("7", "1e3", "true", ".inf"):
        path.write_text(f"name: {name}\ndownload: {{urls: x}}", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"name: must be text, got .*; put it in quotes"):
            load_config(path)
    path.write_text("name: ~\ndownload: {urls: x}", encoding="utf-8")
    with pytest.raises(ConfigError, match="name: Input should be a valid string, got None"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluate.features=[]", "at least 1 item"),
        ("evaluate.features=[vgg]", "no such features: 'vgg'; known: clip, efficientnet-lite0"),
        ("evaluate.features=[dinov2]", "write dinov2:PATH or dinov2:facebook/dinov2-small"),
        ("evaluate.features=[inception,inception:a.pth]", "named more than once: inception"),
        ("evaluate.require={fid: 9}", "fid needs inception in evaluate.features"),
        (
            "evaluate={features: [inception], require: {cmmd: 1}}",
            "cmmd needs clip in evaluate.features",
        ),
        (
            "evaluate={features: [clip, inception], require: {diversity/inception: 1}}",
            "diversity/inception needs inception first",
        ),
    ],
)
def test_wrong_features_are_refused_and_say_what_is_right(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(CONF / "tiny.yaml", [override])


def test_scores_on_chosen_features_may_be_required() -> None:
    features = "evaluate.features=[inception,clip]"
    for score in ("fid", "kid", "cmmd/inception", "diversity/inception", "cmmd"):
        assert load_config(CONF / "tiny.yaml", [features, f"evaluate.require={{{score}: 1}}"])


@pytest.mark.parametrize(
    "override",
    [
        *(
            "train.lr=1e999",
            "train.lr=.nan",
            "train.steps=" + "9" * 400,
            "train.steps=0.5",
            "train.steps=true",
        ),
        *(
            "train.seed=-1",
            f"train.seed={2**63}",
            "evaluate.prompts=1000000000000",
            "train.batch_size=1000000000000",
        ),
        *(
            "download.workers=1000000",
            "download.timeout_s=.inf",
            "name=..",
            "name=a/b",
            "name=" + "a" * 101,
        ),
        *(
            "root=a\0b",
            "root=\ud83d",
            "download.url_column=a\0",
            "download.more_caption_columns=['a\0b']",
            "root=",
        ),
        *(
            "train=1",
            "a.b.c.d=1",
            "=1",
            "train.=1",
            ".lr=1",
            "train.lr==1",
            "name=[",
            "train.lr=[1]",
            "name=" + "[" * 9000,
        ),
        *("download.urls=null", "train.lr=", "evaluate.require={a: {b: 1}}"),
    ],
)
def test_absurd_settings_are_refused_with_their_name(override: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(CONF / "tiny.yaml", [override])
    assert override.partition("=")[0].partition(".")[0] in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("names", ["[style, style]", "[style, caption]", "[more_captions]", "['']"])
def test_columns_to_keep_have_names_of_their_own(names: str) -> None:
    with pytest.raises(ConfigError, match=r"download\.keep_columns"):
        load_config(CONF / "tiny.yaml", ["download.urls=t.csv", f"download.keep_columns={names}"])


def test_the_url_of_a_table_is_used_whole_and_recorded_without_its_secrets() -> None:
    config = DownloadConfig(urls="zip://t.csv::https://me:canary@host/t.zip?key=canary")
    assert (config.urls or "").count("canary") == 2
    assert pickle.loads(pickle.dumps(config)) == config.model_copy() == config
    assert config.model_dump(mode="json")["urls"] == "zip://t.csv::https://host/t.zip?key=***"
    assert "canary" not in config.model_dump_json()


def test_the_default_trains_the_original_blocks_on_more_pairs() -> None:
    ours, original = (load_config(CONF / f"{name}-100m.yaml") for name in ("tld", "original"))
    assert ours.model == original.model.model_copy(update={"text": "tokens"})
    assert ours.train.steps * ours.train.batch_size >= 100_000_000
    assert largest_weight(ours.train, ours.model) == 4
    levels = noise_quantile(ours.train)(torch.tensor([0.5], dtype=torch.float64))
    assert levels.item() > 0.6, "mostly more noise than image"
