"""Words of a command line before any command reads them, and how messages name a workspace."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from flows.terminal.console import load, location_of, prompts_and_overrides, with_home
from tests.support.fuzz import run_tld
from tests.support.small import TINY


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_tilde_is_the_home_folder_where_an_option_begins_with_it(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert with_home(["--out=~/x.png", "--out=~"]) == [f"--out={home}/x.png", f"--out={home}"]


@pytest.mark.parametrize(
    "word",
    ["--out=~nobody-here/x", "~ 5 small stars", "a~b", "--negative=~5", "root=~/x", "~/a", "~"],
)
def test_other_tildes_stay(word: str) -> None:
    assert with_home([word]) == [
        word
    ]  # of a prompt it is text; of a setting, expanded where the setting is read


def test_a_file_is_written_into_the_home_folder(tmp_path: Path) -> None:
    # the shell gives the word as it is: a tilde is expanded only where a word begins with it
    ended = run_tld("catalog", "dropped", TINY, f"root={tmp_path / 'data'}", "--out=~/rows.csv")
    assert ended.code == 0, ended.output
    assert (tmp_path / "rows.csv").is_file()


def test_messages_name_the_workspace_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert location_of(load(TINY, ["root=my/data"])) == f"{tmp_path}/my/data"
    assert location_of(load(TINY, ["root=s3://bucket/laion"])) == "s3://bucket/laion"
    for command in ("status --all", "sample 'a star'", "train", "clean", "catalog verify"):
        name, *words = shlex.split(command)
        shown = run_tld(name, *(w for w in words if w == "verify"), TINY,
                        *(w for w in words if w != "verify"), "root=my/data")  # fmt: skip
        assert f"{tmp_path}/my/data" in shown.output, command


def test_words_that_change_a_setting_are_no_prompts() -> None:
    overrides = ["train.lr=1e-4", "phases.fine-tune.train.lr=1e-4", "name=x"]
    prompts = ["a sci-fi=ish city", "star", "1 + 1 = 2"]
    assert prompts_and_overrides([*prompts, *overrides]) == (prompts, overrides)
