from pathlib import Path

import pytest

from pipeline.config import ConfigError, load_config

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", ["tiny.yaml", "tld-100m.yaml"])
def test_the_configs_that_ship_are_valid(name: str) -> None:
    assert load_config(CONF / name).name == name.removesuffix(".yaml")


def test_overrides_change_single_settings() -> None:
    config = load_config(CONF / "tiny.yaml", ["train.lr=3e-4", "download.limit=7", "encode.vae=a/b", "root=elsewhere"])
    assert (config.train.lr, config.download.limit, config.encode.vae) == (3e-4, 7, "a/b")
    assert config.root == Path("elsewhere")
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
