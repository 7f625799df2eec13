"""Progress on a terminal and in a pipe, as a person or a log sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flows.terminal import progress as progress_module
from flows.terminal.progress import Progress
from flows.terminal.verbosity import choose_verbosity
from tests.support.terminal import on_a_terminal

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
SCRIPT = """
import time
from flows.terminal.progress import Progress
with Progress("train") as show:
    show.update(0, 0, "loading the encodings")
    time.sleep(0.3)
    for step in range(1, 4):
        show.update(step, 4, "loss 0.5")
        time.sleep(0.3)
    show.update(0, 0, "writing the model")
    time.sleep(1.2)
    show.finish("4 rows in 2 s")
"""


@pytest.fixture(autouse=True)
def _normal() -> Iterator[None]:
    yield
    choose_verbosity(quiet=False, verbose=False)


def test_a_bar_moves_with_every_update_and_names_what_is_not_counted() -> None:
    shown = on_a_terminal(sys.executable, "-c", SCRIPT)
    for text in ("loading the encodings", "1/4 (25%)", "2/4 (50%)", "3/4 (75%)"):
        assert text in shown
    after = shown.partition("writing the model")[2]
    assert "(75%)" not in after, "what is not counted has no count"
    assert "0:00:02" in after, "its time goes on"
    assert "4 rows in 2 s" in after
    assert not re.search(STAMP, shown), "a terminal needs no time in front"


def test_in_a_pipe_each_line_begins_with_the_time() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    lines = [re.sub(f"^{STAMP}", "| ", line) for line in ended.stderr.splitlines()]
    assert lines == [
        "| train     loading the encodings",
        "| train     writing the model",
        "| train     4 rows in 2 s",
    ], "a count has a line every ten seconds"


def test_in_a_pipe_a_count_has_a_line_when_it_is_due(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "_INTERVAL_S", 0.0)
    with Progress("encode") as show:
        show.update(1200, 6000, "12 images/s  ETA 6:40")
        show.update(0, 0, "loading the encoders")
        show.update(0, 0, "loading the encoders")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("  encode    1,200/6,000 (20%)  12 images/s  ETA 6:40")
    assert second.endswith("loading the encoders"), "which is told once"


def test_the_log_of_a_caller_has_each_line_that_stays_and_some_of_the_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("flows.terminal.progress.time.monotonic", lambda: now[0])
    lines: list[str] = []
    with Progress("train", lines.append) as show:
        for step in range(1, 11):
            now[0] += 10
            show.update(step, 10, f"loss {1 / step:.2f}")
        show.finish("108 rows in 100 s")
    assert lines == [
        *("4/10 (40%)  loss 0.25", "8/10 (80%)  loss 0.12"),
        "108 rows in 100 s",
    ]


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    choose_verbosity(quiet=True, verbose=False)
    with Progress("encode") as show:
        show.update(0, 0, "loading the encoders")
        show.finish("6000 rows in 50 s")
        show.finish("warning: two images are damaged")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("warning: two images are damaged")


def test_quiet_shows_no_bar_on_a_terminal() -> None:
    quiet = "from flows.terminal.verbosity import choose_verbosity as choose\n"
    shown = on_a_terminal(
        sys.executable, "-c", quiet + "choose(quiet=True, verbose=False)\n" + SCRIPT
    )
    assert shown == ""
