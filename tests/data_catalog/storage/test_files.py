"""Files that are whole or absent, and that others may read where the umask says so."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_catalog.storage.files import (
    link_or_copy,
    make_folder,
    put_in_place,
    replacing,
    replacing_folder,
    write_atomically,
)


def write(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def write_by_safetensors(path: Path) -> None:
    with replacing(path) as unfinished:
        save_file({"weights": torch.zeros(3)}, unfinished)


def write_folder(path: Path) -> None:
    with replacing_folder(path) as unfinished:
        (unfinished / "vae").mkdir()
        save_file({"weights": torch.zeros(3)}, unfinished / "vae" / "model.safetensors")


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077], indirect=True)
@pytest.mark.parametrize("how", [write_by_safetensors, write_folder])
def test_files_have_the_mode_of_the_umask(
    tmp_path: Path, umask: int, how: Callable[[Path], None]
) -> None:
    how(tmp_path / "made")
    for path in [tmp_path / "made", *tmp_path.glob("made/**/*")]:
        default_mode = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == default_mode & ~umask, path


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")
    (tmp_path / "b").mkdir()
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half \ud83d", encoding="utf-8")
    with pytest.raises(FileNotFoundError), replacing_folder(tmp_path / "b") as folder:
        (folder / "new" / "file").touch()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_link_or_copy_replaces_what_is_there(
    tmp_path: Path, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    link_or_copy(source, target)
    assert target.read_text() == "new"
    assert (source.stat().st_ino == target.stat().st_ino) is has_links
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_writers_of_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    texts = [letter * 200_000 for letter in "abcd"]
    threads = [threading.Thread(target=write, args=(tmp_path / "same.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "same.txt").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_named_is_flushed_before_and_after_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(*paths: Path) -> None:
        calls.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    (tmp_path / "unfinished").touch()
    write_atomically(tmp_path / "a.json", "{}")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    put_in_place(tmp_path / "unfinished", tmp_path / "b")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    make_folder(tmp_path / "new" / "folder")
    assert calls == ["folder", "folder"]
    calls.clear()
    with replacing_folder(tmp_path / "all") as unfinished:
        (unfinished / "a.txt").touch()
    assert calls == ["file", "folder", "rename", "folder"]
