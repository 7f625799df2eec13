"""Checks of `--out`, before any work: whether a file or a folder can be written at a path."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from data_catalog.storage.files import write_problem


def kind_of(path: Path) -> str | None:
    """What exists at a path, with links followed; None for nothing. Raises OSError if that cannot
    be known."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device or pipe"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False if that cannot be known."""
    try:
        return kind_of(path) == "folder"
    except OSError:
        return False


def file_problems(out: Path, endings: Sequence[str] = ()) -> list[str]:
    """Why a file cannot be written, with one of these endings if any are given."""
    problems = _problems(out, "file", lambda: _missing_parent(out) or write_problem(out))
    if endings and out.suffix.lower() not in endings:
        problems.insert(0, f"--out must end in {' or '.join(endings)}, got {out.name}")
    return problems


def folder_problems(out: Path, *, with_parents: bool = False) -> list[str]:
    """Why a folder cannot be created, or filled if it exists; `with_parents` also creates the
    folders above it."""

    def problem() -> str | None:
        if kind_of(out):
            return write_problem(out / "file")
        above = out.absolute().parent
        while with_parents and kind_of(above) is None:
            above = above.parent
        return _missing_parent(above / out.name) or write_problem(above / "file")

    return _problems(out, "folder", problem)


def _problems(out: Path, expected: str, problem: Callable[[], str | None]) -> list[str]:
    try:
        kind = kind_of(out)
        if kind and kind != expected:
            return [f"--out: {out} is a {kind}, not a {expected}"]
        why = problem()
    except OSError as error:
        why = error.strerror
    return [f"--out: cannot write {out}: {why}"] if why else []


def _missing_parent(out: Path) -> str | None:
    return None if kind_of(out.parent) == "folder" else f"there is no folder {out.parent}"
