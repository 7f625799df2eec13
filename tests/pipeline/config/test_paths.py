"""Paths in settings: what is expanded, what is refused by name, and that a written config reads the
same."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.download.stage import download
from tests.support.mapping import map_here
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker

PATHS = (
    *("root", "cache.folder", "download.urls", "encode.vae", "encode.clip"),
    *("train.init_from", "train.continue_from"),
)


def value(config: RunConfig, setting: str) -> str:
    node: object = config
    for name in setting.split("."):
        node = getattr(node, name)
    return str(node)


@pytest.mark.parametrize("setting", PATHS)
def test_home_and_variables_are_expanded_in_every_path(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    for path, expected in {
        "~/a": "/home/me/a",
        "$DISK/a": "/disk/a",
        "${DISK}b": "/diskb",
        "/a$$DISK": "/a$DISK",
        "/a$5 $": "/a$5 $",
        "./~a": str(Path("~a").absolute()),
    }.items():
        config = load_config(TINY, [f"{setting}={path}"])
        assert Path(value(config, setting)) == Path(expected)
        again = RunConfig.model_validate(config.model_dump(mode="json"))
        assert value(again, setting) == value(config, setting), "a written config reads the same"


def test_the_path_of_feature_weights_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    for path, expected in {
        "~/a": "/home/me/a",
        "$DISK/a": "/disk/a",
        "/a$$DISK": "/a$DISK",
    }.items():
        config = load_config(TINY, [f"evaluate.features=[clip,'inception:{path}']"])
        assert config.evaluate.features == ("clip", f"inception:{expected}")
        again = RunConfig.model_validate(config.model_dump(mode="json"))
        assert again.evaluate.features == config.evaluate.features
    with pytest.raises(ConfigError, match="the environment variable NOWHERE is not set"):
        load_config(TINY, ["evaluate.features=['inception:$NOWHERE/a']"])


@pytest.mark.parametrize("setting", PATHS)
def test_what_stands_for_nothing_is_refused_by_name(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    for path, message in {
        "$NOWHERE/a": "the environment variable NOWHERE is not set",
        "$EMPTY/a": "the environment variable EMPTY is empty",
        "~nobody-here/a": "'~nobody-here' is not a user's home folder",
        '"a\\0b"': "NUL",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config(TINY, [f"{setting}={path}"])


def test_urls_stay_as_they_are() -> None:
    config = load_config(
        TINY, ["root=s3://bucket/$USER/~", "download.urls=https://host.example/$a.csv"]
    )
    assert config.root == "s3://bucket/$USER/~"
    assert config.download.urls == "https://host.example/$a.csv"


def test_images_are_downloaded_into_any_folder(tmp_path: Path) -> None:
    """fsspec, below img2dataset, takes :: for a chain of URLs."""
    config = load_config(TINY, ["download.limit=4", "download.shard_size=4"])
    out = tmp_path / "a::b [c] {d,e}*?#%20"
    output = download(config.download, out, RememberingTracker(), map_here)
    assert sum(shard.rows for shard in output.shards) == 4
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
