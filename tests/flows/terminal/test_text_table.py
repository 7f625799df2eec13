"""Tables keep every cell whole, on a narrow terminal and in a pipe."""

from __future__ import annotations

import io

import pytest

from flows.terminal.console import Terminal
from flows.terminal.text_table import TextTable

PATH = "/a/long/path/of/a/workspace/that/somebody/has/chosen/03_model/4d21042deadb"
WORDS = "train.lr=0.0005 train.batch_size=128 model.layers=12 train.lr_schedule=constant"


def printed(width: int, *, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Terminal(soft_wrap=True)
    console.file, console.width = io.StringIO(), width
    monkeypatch.setattr(type(console), "is_terminal", property(lambda _: terminal))
    table = TextTable("stage", "differs", "folder")
    table.add_row("train", WORDS, PATH)
    table.add_row("evaluate", "", "short")
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert "…" not in console.file.getvalue()
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_in_a_pipe_each_row_is_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    header, train, evaluate = printed(width, terminal=False, monkeypatch=monkeypatch)
    assert header.split() == ["stage", "differs", "folder"]
    assert train.split() == ["train", *WORDS.split(), PATH]
    assert evaluate.split() == ["evaluate", "short"]


def test_on_a_terminal_cells_wrap_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(120, terminal=True, monkeypatch=monkeypatch)
    assert max(map(len, lines)) <= 120
    assert PATH in lines[1]
    assert len(lines) > 3
    words = " ".join(lines).split()
    assert set(WORDS.split()) <= set(words)


def test_on_a_terminal_too_narrow_for_its_words_each_row_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, train, _ = printed(40, terminal=True, monkeypatch=monkeypatch)
    assert train.split() == ["train", *WORDS.split(), PATH]


def test_a_table_without_headers_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    table = TextTable()
    table.add_row("tld", "0.2.0 in /somewhere")
    table.add_row("python", "3.12")
    Terminal(soft_wrap=True).print(table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["tld     0.2.0 in /somewhere", "python  3.12"]
