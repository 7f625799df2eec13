"""The file that CONFIG names: one of the user's, or a shipped one, from any folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config.config_file import find_config_file, shipped_configs
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from tests.support.command import tld
from tests.support.small import TINY


@pytest.mark.parametrize(
    "name", ["tiny", "short-prompts", "emoji", "tld-100m", "original-100m", "modern-250m"]
)
def test_the_name_of_a_shipped_config_is_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for config in (Path(name), Path(f"{name}.yaml")):
        assert find_config_file(config) == shipped_configs()[name]
        assert load_config(config).name == name


@pytest.mark.parametrize("local", ["tiny", "tiny.yaml"])
def test_a_file_of_the_users_comes_first(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / local).write_text(TINY.read_text(encoding="utf-8").replace("tiny", "own"))
    assert load_config(Path(local)).name == "own"


def test_a_folder_of_that_name_is_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert load_config(Path("tiny")).name == "tiny"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            "tiney",
            "no config file at tiney; did you mean 'tiny'? tld ships emoji, modern-250m, original-100m, short-prompts, tiny, tld-100m; ",
        ),
        ("conf/tiny.yaml", "no config file at conf/tiny.yaml; did you mean 'tiny'? "),
        (
            "mine.yaml",
            "no config file at mine.yaml; tld ships emoji, modern-250m, original-100m, short-prompts, tiny, tld-100m; ",
        ),
        ("tld-10m", "tld config tld-100m > mine.yaml"),
    ],
)
def test_the_error_names_what_is_close_and_what_is_shipped(
    config: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load_config(Path(config))
    assert says in str(raised.value)
    assert "emoji, modern-250m, original-100m, short-prompts, tiny, tld-100m" in str(raised.value)


@pytest.mark.slow
def test_commands_work_in_an_empty_folder_and_repeat_what_was_typed(tmp_path: Path) -> None:
    status = tld("status", "tiny", cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "missing" in status.stdout
    plan = tld("download", "tiny", "download.limit=100", "--plan", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "100" in plan.stdout
    early = tld("train", "tiny", "train.lr=1e-3", cwd=tmp_path)
    assert early.returncode == 2
    assert "  tld run tiny train.lr=1e-3 --until encode" in early.stderr
    for command in (["compare", "tiny", "tiny train.seed=1"], ["sample", "tiny", "a star"]):
        done = tld(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert "tld run tiny --until train" in done.stderr
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    assert not list(tmp_path.iterdir())
