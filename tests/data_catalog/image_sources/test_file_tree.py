"""Which files of a source count, and what becomes of those that are none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from data_catalog.image_sources.file_tree import ImageSourceError, NoContent, quoted, unquoted
from data_catalog.image_sources.find_tree import find_tree
from tests.support.users import as_another_user, shared_folder


def names(source: Path | str) -> list[str]:
    return [file.name for file in find_tree(str(source)).files]


def touch(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "a.jpg", ".DS_Store", "_tmp/1.jpg", "b/.thumbs/1.jpg", "b/_x.jpg")
    assert names(tmp_path) == ["a.jpg", "b/2.jpg", "b/_x.jpg"]  # as cameras name images


def test_pipes_and_sockets_are_left_out_and_cannot_be_opened(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        assert names(tmp_path) == ["a.jpg"]
        assert names(tmp_path / "*.jpg") == ["a.jpg"]
    for name in ("pipe.jpg", "socket.jpg"):
        with pytest.raises(OSError, match="pipe, socket or device"):
            find_tree(str(tmp_path)).open(name)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "here/a.jpg", "there/b.jpg")
    (tmp_path / "here/linked").symlink_to(tmp_path / "there")
    (tmp_path / "here/loop").symlink_to(tmp_path / "here")
    (tmp_path / "here/itself.jpg").symlink_to(tmp_path / "here/itself.jpg")
    (tmp_path / "here/nothing.jpg").symlink_to("gone")
    assert names(tmp_path / "here") == ["a.jpg", "itself.jpg", "linked/b.jpg", "nothing.jpg"]
    tree = find_tree(str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError) as gone:
        tree.open("nothing.jpg")
    assert str(tree.why_not(gone.value)) == "no such file"


def test_only_errors_of_remote_files_may_pass(tmp_path: Path) -> None:
    remote = find_tree("memory://")
    error = OSError("no route")
    assert remote.why_not(error) is error
    local = find_tree(str(tmp_path)).why_not(error)
    assert isinstance(local, NoContent)
    assert local.__cause__ is error


def test_a_folder_that_may_not_be_read_is_one_message() -> None:
    with shared_folder() as folder:
        touch(folder, "a.jpg", "closed/b.jpg")
        (folder / "closed").chmod(0)
        with as_another_user(), pytest.raises(ImageSourceError, match="cannot be listed") as told:
            _ = find_tree(str(folder)).files
        (folder / "closed").chmod(0o755)
    assert told.value.exit_code == 2


def test_the_digest_follows_the_files_but_not_their_place(tmp_path: Path) -> None:
    touch(tmp_path, "old/a.jpg", "old/b.jpg")
    tree = find_tree(str(tmp_path / "old"))
    before, of_b = tree.digest(), tree.digest(["b.jpg"])
    (tmp_path / "old").rename(tmp_path / "new")
    tree = find_tree(str(tmp_path / "new"))
    assert tree.digest() == before
    (tmp_path / "new/a.jpg").write_bytes(b"longer than before")
    tree = find_tree(str(tmp_path / "new"))
    assert tree.digest() != before
    assert tree.digest(["b.jpg"]) == of_b


def test_addresses_hold_any_name() -> None:
    for name in ("a b.jpg", "100%#1?.jpg", "ü/写真.jpg", os.fsdecode(b"caf\xe9.jpg")):
        assert quoted(name).isascii()
        assert unquoted(quoted(name)) == name
