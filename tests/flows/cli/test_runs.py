"""`tld runs`: the table, and what programs read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli.runs import runs
from flows.terminal.errors import UserError
from tests.support.command import tld
from tests.support.workspace import make_workspace, output


def test_runs_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = make_workspace("data"), make_workspace("data", train__lr=5e-4)
    runs()
    place, _, header, *rows = capsys.readouterr().out.splitlines()
    assert place == f"{tmp_path}/data"
    assert header.split() == ["run", "differs", "in", "scores", "made", "(UTC)", "output", "MB"]
    assert len(rows) == 2
    for config, lr in ((first, "0.001"), (second, "0.0005")):
        (row,) = [row for row in rows if f"train.lr={lr}" in row]
        model = output(config, "train")
        assert row.split()[0] == "tiny"
        assert f"03_model/{model.folder.name}" in row
        assert model.made_at[:16].replace("T", " ") in row

    runs(root="data", as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert {run["differs"]["train.lr"] for run in listed} == {"0.001", "0.0005"}
    assert all(Path(run["outputs"][-1], "manifest.json").exists() for run in listed)
    assert all(run["bytes"] > 1000 for run in listed)


def test_a_workspace_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(root=str(tmp_path))
    assert f"no finished run in {tmp_path}" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"there is no workspace at {tmp_path}/gone"):
        runs(root=f"{tmp_path}/gone")


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    done = tld("runs", "--root", tmp_path / "gone")
    assert done.returncode == 2
    assert done.stderr == f"tld: there is no workspace at {tmp_path}/gone; --root names another\n"
