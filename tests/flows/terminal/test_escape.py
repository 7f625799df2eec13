"""What strangers wrote, shown to people: no terminal obeys it, no spreadsheet computes it."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from flows.terminal.console import Terminal
from flows.terminal.escape import csv_cell, visible
from tests.support.command import ENVIRONMENT, REPOSITORY, command, tld

_CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"  # OSC 52: sets the clipboard of the terminal
_TINY = REPOSITORY / "conf" / "tiny.yaml"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    shown = visible(text)
    assert not [one for one in shown if unicodedata.category(one) == "Cc" and one not in "\t\n"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    assert visible(shown) == shown


@given(st.text())
def test_text_without_control_characters_stays_as_it_is(text: str) -> None:
    if text.isprintable():
        assert visible(text) == text


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n+1", "＝1"]
)
def test_a_spreadsheet_computes_no_cell(cell: str) -> None:
    assert str(csv_cell(cell)).startswith("'")


def test_numbers_and_ordinary_text_stay_as_they_are() -> None:
    assert [csv_cell(cell) for cell in (7, None, "a star", "3 - 2", "a=b")] == [
        7,
        None,
        "a star",
        "3 - 2",
        "a=b",
    ]


def test_neither_text_nor_cells_control_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    table = Table(f"head{_CLIPBOARD}", title=f"title{_CLIPBOARD}")
    table.add_row(f"cell [/b] {_CLIPBOARD}")
    terminal.print(f"line [/b] :smile: {_CLIPBOARD}")
    terminal.print(table)
    shown = capfd.readouterr().out
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "line [/b] :smile: \\x1b]52" in shown
    assert "cell [/b] \\x1b]52" in shown


def test_words_of_the_command_line_reach_the_terminal_escaped(tmp_path: Path) -> None:
    for words in (
        ["x[/b]\x1b[31m"],
        ["run", "x[/b]\x1b[31m"],
        ["status", _TINY, f"root={tmp_path}/[/b]\x1b[31m"],
    ):
        ended = tld(*words)
        assert "\x1b" not in ended.stdout + ended.stderr
        assert "x[/b]\\x1b[31m" in ended.stdout + ended.stderr or ended.returncode == 0
        assert "unexpected" not in ended.stderr


def test_dropped_rows_are_safe_in_terminals_and_spreadsheets(tmp_path: Path) -> None:
    table = tmp_path / "urls.csv"
    captions = [f"{_CLIPBOARD} a long enough caption", "=HYPERLINK(A1) and more", "a plain caption"]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        writer.writerows([f"ftp://host.example/{i}.jpg", text] for i, text in enumerate(captions))
    ended = tld("catalog", "dropped", _TINY, f"download.urls={table}", f"root={tmp_path}/data")
    assert ended.returncode == 0
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert [row["caption"] for row in rows] == [
        "\\x1b]52;c;cm0gLXJmIH4=\\x07 a long enough caption",
        "'=HYPERLINK(A1) and more",
        "a plain caption",
    ]


# Of a user, whose output Python writes at the end where it is no terminal.
_BUFFERED = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    "words", [["--help"], ["catalog", "list"], ["config", _TINY], ["status", _TINY, "--json"]]
)
def test_a_reader_that_leaves_early_ends_a_command_quietly(words: list[str | Path]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        command(*words),
        cwd=REPOSITORY,
        env=_BUFFERED,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == 141
    assert not ended.stderr


def test_output_to_a_full_disk_is_explained() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command("config", _TINY), cwd=REPOSITORY, env=_BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "the disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_what_a_program_reads_is_utf8_whatever_the_locale_says(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        _TINY.read_text(encoding="utf-8").replace("root: data", "root: dáta-星"), encoding="utf-8"
    )
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run(
        command("config", config), cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert "root: dáta-星" in ended.stdout.decode("utf-8")
    assert ended.returncode == 0
