"""`--out`: what keeps a file or a folder from being written there, known before any work."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from data_catalog.files import write_problem


def kind_of(path: Path) -> str | None:
    """What lies at a path, or leads there by a link; None where nothing does, or nothing can."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device or pipe"


def file_problems(out: Path, endings: Sequence[str] = ()) -> list[str]:
    """What keeps a file from being written, with one of these endings if any are given."""
    problems = _place_problems(out, "file")
    if endings and out.suffix.lower() not in endings:
        problems.insert(0, f"--out must end in {' or '.join(endings)}, got {out.name}")
    return problems


def folder_problems(out: Path) -> list[str]:
    """What keeps a folder from being made, or filled where it is there."""
    return _place_problems(out, "folder")


def _place_problems(out: Path, wanted: str) -> list[str]:
    found = kind_of(out)
    if found and found != wanted:
        return [f"--out: {out} is a {found}, not a {wanted}"]
    if kind_of(out.parent) != "folder":
        return [f"--out: there is no folder {out.parent} to write {out.name} into"]
    if problem := write_problem(out / "file" if found == "folder" else out):
        return [f"--out: cannot write {out}: {problem}"]
    return []
