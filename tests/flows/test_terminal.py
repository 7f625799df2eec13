"""Words of a command line, before any command reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.terminal import with_home
from tests.support.fuzz import run_tld
from tests.support.small import TINY


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_tilde_is_the_home_folder_wherever_a_path_may_stand(tmp_path: Path) -> None:
    words = ["--out=~/x.png", "--out=~", "~/a", "~", "--like", "~/b"]
    home = str(tmp_path)
    assert with_home(words) == [f"--out={home}/x.png", f"--out={home}", f"{home}/a", home, "--like", f"{home}/b"]


@pytest.mark.parametrize("word", ["--out=~nobody-here/x", "~ 5 small stars", "a~b", "--negative=~5", "root=~/x"])
def test_other_tildes_stay(word: str) -> None:
    assert with_home([word]) == [word]  # a setting's is expanded where the setting is read


def test_a_file_is_written_into_the_home_folder(tmp_path: Path) -> None:
    # the shell gives the word as it is: a tilde is expanded only where a word begins with it
    ended = run_tld("catalog", "dropped", TINY, f"root={tmp_path / 'data'}", "--out=~/rows.csv")
    assert ended.code == 0, ended.output
    assert (tmp_path / "rows.csv").is_file()
