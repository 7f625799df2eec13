"""`tld compare` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.compare import compare
from flows.terminal.errors import UserError
from tests.support.command import tld
from tests.support.small import TINY
from tests.support.workspace import make_workspace, overrides


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare") / "data"
    make_workspace(root)
    make_workspace(root, train__seed=1)
    return root


@pytest.mark.slow
def test_two_runs_give_a_table_a_page_and_a_picture(root: Path) -> None:
    done = tld("compare", TINY, f"{TINY} train.seed=1", *overrides(root), "evaluate.prompts=6")
    assert done.returncode == 0, done.stderr
    assert "clip_score" in done.stdout
    assert f"B  {TINY} train.seed=1" in done.stdout
    assert "6 prompts" in done.stdout
    (folder,) = (root / "comparisons").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "comparison.html",
        "comparison.png",
        "comparison.json",
    }
    assert str(folder / "comparison.html") in done.stdout


@pytest.mark.slow
def test_mistakes_in_both_runs_are_told_at_once(root: Path) -> None:
    done = tld("compare", "gone.yaml", f"{TINY} train.seed=7", *overrides(root))
    assert done.returncode == 2
    assert "run A: no config file at gone.yaml" in done.stderr
    assert "run B: no model has been trained with these settings in" in done.stderr
    assert f"tld run {TINY} train.seed=7" in done.stderr
    assert "--until train" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_settings_that_differ_are_told_of_runs_that_are_not_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare(str(TINY), f"{TINY} train.lr=1e-3 train.log_every=7", "name=x", settings=True)
    assert capsys.readouterr().out == "train.lr 0.005 -> 0.001\ntrain.log_every 25 -> 7\n"
    compare(str(TINY), str(TINY), settings=True)
    assert capsys.readouterr().out == "no setting differs\n"
    with pytest.raises(UserError, match="run A: no config file at gone"):
        compare("gone.yaml", str(TINY), settings=True)
    with pytest.raises(UserError, match="leave out --prompts"):
        compare(str(TINY), str(TINY), settings=True, prompts=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((TINY, TINY), "both runs have the same model and the same sampling settings"),
        ((TINY, f"{TINY} 'train.seed=1"), "run B: No closing quotation"),
        ((TINY, f"{TINY} train.seed=1", "--prompts", "1"), "--prompts must be at least 2, got 1"),
        ((TINY, f"{TINY} train.seed=1", "--out", TINY), "is a file, not a folder"),
    ],
)
def test_a_comparison_that_makes_no_sense(
    root: Path, arguments: tuple[str | Path, ...], says: str
) -> None:
    done = tld("compare", *arguments, *overrides(root))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
