"""What is checked of the machine: the workspace, the compiler, open files and other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.preflight import machine_checks
from pipeline.preflight.machine_checks import MACHINE_CHECKS
from tests.support.small import TINY, small


def problems_of(root: Path | str, **changed: object) -> list[str]:
    config = load_config(TINY, small(root, **changed))
    return [problem for check in MACHINE_CHECKS for problem in check(config)]


def test_a_workspace_must_be_a_folder_that_can_be_written(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "new" / "deep") == []
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for root, says in (
        (tmp_path / "file", f"root: {tmp_path}/file is a file, not a folder"),
        (tmp_path / "file" / "below", f"root: {tmp_path}/file is a file, not a folder"),
        (tmp_path / "link", f"root: {tmp_path}/link is a link to a file that does not exist"),
    ):
        assert problems_of(root) == [says]


def test_compilation_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert problems_of(tmp_path, train__compile="false") == []
    (problem,) = problems_of(tmp_path, train__compile="true")
    assert "needs a C++ compiler, but none was found (gcc, clang); install one" in problem
    assert problems_of(tmp_path, train__compile="auto") == []

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CC", "no-such-compiler")
    (problem,) = problems_of(tmp_path, train__compile="true", train__device="auto")
    assert "needs a C compiler" in problem


def test_a_run_needs_some_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, says in ((64, 1), (128, 0), (-1, 0)):
        monkeypatch.setattr(machine_checks, "descriptor_limit", lambda limit=limit: limit)
        assert len(problems_of(tmp_path)) == says, limit


def test_other_machines_share_no_workspace_in_object_storage(tmp_path: Path) -> None:
    problems = problems_of(
        "s3://bucket/run",
        cache__folder=tmp_path / "cache",
        train__launch__nodes=2,
        train__launch__rendezvous="localhost:29500",
    )
    assert any(problem.startswith("train.launch.nodes: 2 machines") for problem in problems)
