"""`tld data` as a user runs it: another process, its address, and Ctrl-C."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.browsed import ROWS, browsed_config, download_browsed
from tests.support.command import start, tld
from tests.support.live import ask


def config_file(folder: Path) -> Path:
    """The config of `browsed_config` as a file."""
    config = browsed_config(folder)
    path = folder / "look.yaml"
    path.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
    return path


@pytest.mark.slow
def test_without_a_download_it_says_what_to_type(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    done = tld("data", path)
    assert done.returncode == 2, done.stdout
    assert f"nothing is downloaded yet; type\n  tld download {path}\n" in done.stderr
    assert "Traceback" not in done.stderr
    taken = tld("data", path, "--port", "70000")
    assert taken.returncode == 2
    assert "--port must be between 0 and 65535" in taken.stderr


@pytest.mark.slow
def test_it_prints_its_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    download_browsed(browsed_config(tmp_path))
    with start("data", path) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.fullmatch(r"look  http://127\.0\.0\.1:(\d+)/\n", line)
            assert address, line + process.stdout.read()
            port = int(address[1])
            assert b"<title>tld data</title>" in ask(port, "GET", "/").body
            assert ask(port, "GET", "/rows?page=0").json["found"] >= len(ROWS) - 1
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
