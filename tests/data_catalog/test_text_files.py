"""What editors on any system make of a text file."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.text_files import TextFileError, read_text

_TEXT = "a small star\nGröße 星 😀\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_as_its_editor_saved_it(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(_TEXT.encode(encoding))
    assert read_text(path) == _TEXT


@pytest.mark.parametrize(
    ("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\x00\x00\xfe\xff", "utf-32-be")]
)
def test_big_endian_text_is_read_by_its_mark(mark: bytes, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(mark + _TEXT.encode(encoding))
    assert read_text(path) == _TEXT


def test_other_encodings_are_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin"
    path.write_bytes("a star\nGröße".encode("latin-1"))
    with pytest.raises(
        TextFileError, match=r"latin is not UTF-8 text \(byte 0xf6 in line 2\); save it as UTF-8"
    ):
        read_text(path)


def test_what_cannot_be_read_or_never_ends_is_refused(tmp_path: Path) -> None:
    for path, words in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "null"),
    ]:
        with pytest.raises(TextFileError, match=words):
            read_text(path)
    with pytest.raises(TextFileError, match="/dev/zero is larger than"):
        read_text(Path("/dev/zero"))
