"""Paths and numbers on the command line that cannot be used: known before any work, told as the
user's mistake."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.fuzz import check_explained, run_tld
from tests.support.small import TINY

LONG = "a" * 300
HUGE = "9" * 30

TO_A_FILE = {
    "sample": ["sample", TINY, "a star", "--out", "{}.png"],
    "edit": ["edit", TINY, "no.png", "a star", "--out", "{}.png"],
    "interpolate": ["interpolate", TINY, "a star", "--out", "{}.gif"],
    "panorama": ["panorama", TINY, "a star", "--out", "{}.png"],
    "export-checkpoint": ["export-checkpoint", "no", "--layout", "main", "--out", "{}.pth"],
    "catalog dropped": ["catalog", "dropped", TINY, "--out", "{}.csv"],
    "export": ["export", TINY, "--format", "safetensors", "--out", "{}.safetensors"],
}
TO_A_FOLDER = {
    "sample": ["sample", TINY, "a star", "--out", "{}"],
    "export": ["export", TINY, "--out", "{}"],
}
TO_A_FOLDER_WITH_PARENTS = {
    "import-checkpoint": ["import-checkpoint", "no.pth", "--out", "{}"],
    "compare": ["compare", TINY, TINY, "--out", "{}"],
}
READ = {  # commands that read from a path
    "a config": ["status", "{}"],
    "root": ["status", TINY, "root={}"],
    "the root of a run": ["run", TINY, "root={}", "download.urls=no.csv"],
    "a table": ["run", TINY, "download.urls={}"],
    "a VAE": ["run", TINY, "download.urls=no.csv", "encode.vae=./{}"],
    "first weights": ["run", TINY, "download.urls=no.csv", "train.init_from={}"],
    "a training": ["run", TINY, "download.urls=no.csv", "train.continue_from={}"],
    "a model": ["sample", TINY, "a star", "--model", "{}"],
    "prompts": ["sample", TINY, "--prompts", "{}"],
    "an image to repeat": ["sample", TINY, "--like", "{}"],
    "an edit to repeat": ["edit", TINY, "no.png", "--like", "{}"],
    "an interpolation to repeat": ["interpolate", TINY, "--like", "{}"],
    "a panorama to repeat": ["panorama", TINY, "--like", "{}"],
    "an image": ["edit", TINY, "{}", "a star"],
    "a mask": ["edit", TINY, "no.png", "a star", "--mask", "{}"],
    "an image to go on from": ["panorama", TINY, "a star", "--picture", "{}"],
    "a checkpoint": ["import-checkpoint", "{}", "--out", "mine"],
    "a model to export": ["export-checkpoint", "{}", "--layout", "main", "--out", "out.pth"],
    "tokens": ["serve", TINY, "--token-file", "{}"],
    "two runs": ["compare", "{}", "{}"],
    "a run to keep": ["clean", TINY, "--keep", "{}"],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, a folder of each ending, and a link to itself; the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for ending in ("", ".png", ".gif", ".pth", ".csv", ".safetensors"):
        (tmp_path / f"folder{ending}").mkdir()
    return tmp_path


def refused(command: list[object], path: str) -> str:
    ended = run_tld(*(str(word).replace("{}", path) for word in command))
    check_explained(ended)
    assert ended.code == 2, ended.output
    return ended.output


OUTPUTS = [*TO_A_FILE.items(), *TO_A_FOLDER.items(), *TO_A_FOLDER_WITH_PARENTS.items()]


@pytest.mark.parametrize("path", ["no/x", "file/x", "loop/x", "/proc/x", "/proc/1/x", LONG])
@pytest.mark.parametrize("command", OUTPUTS, ids=lambda item: item[0])
def test_what_cannot_be_written_is_told_before_any_work(
    here: Path, command: tuple[str, list[object]], path: str
) -> None:
    before = sorted(here.iterdir())
    output = refused(command[1], path)
    assert "--out: " in output or (path == "no/x" and command[0] in TO_A_FOLDER_WITH_PARENTS)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "command", [item for item in TO_A_FILE.items() if item[0] != "sample"], ids=lambda item: item[0]
)
def test_a_folder_is_no_file(command: tuple[str, list[object]]) -> None:
    output = refused(command[1], "folder")
    assert "is a folder, not a file" in output or "Is a directory" in output


@pytest.mark.parametrize("command", OUTPUTS[len(TO_A_FILE) :], ids=lambda item: item[0])
def test_a_file_or_a_device_is_no_folder(command: tuple[str, list[object]]) -> None:
    assert "is a file, not a folder" in refused(command[1], "file")
    assert "is a device or pipe, not a folder" in refused(command[1], "/dev/null")


@pytest.mark.parametrize("path", [LONG, "a/" * 3000, "loop", "loop/x", "file/x"])
@pytest.mark.parametrize("command", READ.items(), ids=lambda item: item[0])
def test_what_cannot_be_read_is_the_users_mistake(
    command: tuple[str, list[object]], path: str
) -> None:
    at_fault = path[:20] if len(path) > 100 else path.partition("/")[0]
    assert at_fault in refused(command[1], path)


DRAWN = {
    "--steps": ["0", HUGE],
    "--guidance": ["0.5", "nan", "inf", "1e300"],
    "--seed": ["-1", HUGE],
}
NUMBERS = {
    "interpolate": (
        ["interpolate", TINY, "a star", "a circle"],
        DRAWN | {"--to-seed": ["-1", HUGE], "--frames": ["1", HUGE]},
    ),
    "edit": (
        ["edit", TINY, "no.png", "a star"],
        DRAWN
        | {
            "--strength": ["0", "nan", "2"],
            "--outpaint": ["left=99999", "left=0", "up=3", ""],
            "--overlap": ["8"],
        },
    ),
    "panorama": (
        ["panorama", TINY, "a star"],
        DRAWN | {"--windows": ["0", HUGE], "--overlap": ["0", HUGE]},
    ),
    "sample": (
        ["sample", TINY, "a star"],
        DRAWN | {"--count": ["0", HUGE], "--size": ["0x8", f"{HUGE}x8"]},
    ),
    "ui": (["ui", TINY], {"--port": ["0", "-1", "65535", HUGE]}),
}


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (words, option, value)
        for words, options in NUMBERS.values()
        for option, values in options.items()
        for value in values
    ],
)
def test_a_number_that_is_out_of_bounds_is_the_users_mistake(
    command: list[object], option: str, value: str
) -> None:
    assert option in refused([*command, f"{option}={value}"], "")


def test_rows_may_be_written_to_a_pipe(here: Path) -> None:
    os.mkfifo(here / "pipe")
    with ThreadPoolExecutor(1) as beside:
        read = beside.submit((here / "pipe").read_text)
        assert run_tld("catalog", "dropped", TINY, "--out", "pipe").code == 0
        assert read.result().startswith("stage,")
