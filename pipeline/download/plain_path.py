"""A path that fsspec does not mistake for a chain of URLs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to the folder that fsspec, with which img2dataset writes, does not mistake for a chain
    of URLs."""
    if "::" not in str(folder):
        yield folder
        return
    with TemporaryDirectory() as links:
        link = Path(links) / "folder"
        link.symlink_to(folder.absolute())
        yield link
