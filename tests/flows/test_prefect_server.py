"""The Prefect server of a run, killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from flows.prefect_server import _drain, prefect_server
from tests.support.command import descendants
from tests.support.prefect_api import wait_for


def ask(api: str, path: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def answers(api: str) -> bool:
    try:
        return ask(api, "health") is True
    except OSError:
        return False


def test_a_killed_server_is_started_again_and_knows_what_it_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = set(descendants(os.getpid()))
    with prefect_server(tmp_path) as api:
        made = ask(api, "flows/", {"name": "text-to-image"})
        (server,) = set(descendants(os.getpid())) - before
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: not answers(api))
        wait_for(lambda: answers(api))
        assert ask(api, "flows/name/text-to-image") == made
    assert set(descendants(os.getpid())) <= before
    assert "the Prefect server ended with exit code -9; it is started again" in capsys.readouterr().err


def test_a_server_that_is_killed_while_it_answers_fails_no_run_that_ended_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_part() -> None:
            asking, _ = listener.accept()
            with asking:
                asking.recv(65536)
                asking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1")

        threading.Thread(target=answer_in_part).start()
        _drain(f"http://127.0.0.1:{listener.getsockname()[1]}/api", limit_s=1)


def test_beside_a_server_that_is_given_prefect_has_its_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it warns that it cannot make it."""
    monkeypatch.setenv("PREFECT_HOME", "")
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with prefect_server(tmp_path / "data" / "prefect") as api:
        assert api == os.environ["PREFECT_API_URL"]
        assert Path(os.environ["PREFECT_HOME"]).is_dir()
