"""`--out`: what keeps a file or a folder from being written there, known before any work."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from data_catalog.storage.files import write_problem


def kind_of(path: Path) -> str | None:
    """What lies at a path, or where its link leads; None for nothing. Raises OSError where that
    cannot be known."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device or pipe"


def is_folder(path: Path) -> bool:
    """Whether a folder is there; no, where that cannot be known."""
    try:
        return kind_of(path) == "folder"
    except OSError:
        return False


def file_problems(out: Path, endings: Sequence[str] = ()) -> list[str]:
    """What keeps a file from being written, with one of these endings if any are given."""
    problems = _told(out, "file", lambda: _lacking_parent(out) or write_problem(out))
    if endings and out.suffix.lower() not in endings:
        problems.insert(0, f"--out must end in {' or '.join(endings)}, got {out.name}")
    return problems


def folder_problems(out: Path, with_parents: bool = False) -> list[str]:
    """What keeps a folder from being filled where it is there, or from being made; with those above
    it if so wanted."""

    def problem() -> str | None:
        if kind_of(out):
            return write_problem(out / "file")
        above = out.absolute().parent
        while with_parents and kind_of(above) is None:
            above = above.parent
        return _lacking_parent(above / out.name) or write_problem(above / "file")

    return _told(out, "folder", problem)


def _told(out: Path, wanted: str, problem: Callable[[], str | None]) -> list[str]:
    try:
        found = kind_of(out)
        if found and found != wanted:
            return [f"--out: {out} is a {found}, not a {wanted}"]
        why = problem()
    except OSError as error:
        why = error.strerror
    return [f"--out: cannot write {out}: {why}"] if why else []


def _lacking_parent(out: Path) -> str | None:
    return None if kind_of(out.parent) == "folder" else f"there is no folder {out.parent}"
