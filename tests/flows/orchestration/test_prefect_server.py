"""The Prefect server of a run: killed, hung, with a damaged database, beside settings for
another."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from prefect import Flow

from flows.orchestration import prefect_watch
from flows.orchestration.prefect_api import ask, drain, is_healthy
from flows.orchestration.prefect_server import prefect_server
from flows.terminal.errors import UserError
from tests.support.command import descendants, is_running
from tests.support.prefect_api import wait_for


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "warning"),
    [
        (signal.SIGKILL, "ended with exit code -9"),
        (signal.SIGSTOP, "does not answer; continuing"),
    ],
)
def test_a_server_that_is_gone_or_hangs_is_started_again_and_knows_what_it_knew(
    how: signal.Signals,
    warning: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(prefect_watch, "_HUNG_S", 9.0)
    before = set(descendants(os.getpid()))
    with prefect_server(tmp_path) as api:
        flow = Flow(lambda: None, name="text-to-image")
        flow()
        known = ask(api, "/flows/name/text-to-image")
        (server,) = set(descendants(os.getpid())) - before
        os.kill(server, how)
        wait_for(lambda: not is_running(server))
        wait_for(lambda: is_healthy(api, 10))
        assert ask(api, "/flows/name/text-to-image") == known
        flow()
    assert set(descendants(os.getpid())) <= before
    output = capsys.readouterr().err
    assert output.count(warning) == 1
    assert output.count("restarting it") == 1


@pytest.mark.slow
def test_what_is_done_meanwhile_is_done_beside_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before, seen = set(descendants(os.getpid())), list[object]()

    def meanwhile() -> None:
        wait_for(lambda: set(descendants(os.getpid())) > before)
        with contextlib.suppress(OSError, ValueError):
            seen.append(ask(os.environ["PREFECT_API_URL"], "/health", limit_s=0.1))
        seen.append("begun before the server answers")

    with prefect_server(tmp_path, meanwhile):
        assert seen == ["begun before the server answers"]


@pytest.mark.slow
def test_what_fails_meanwhile_ends_the_server_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before, mine = set(descendants(os.getpid())), os.environ.copy()

    def fail() -> None:
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"), prefect_server(tmp_path, fail):
        pytest.fail("the block must not begin")
    wait_for(lambda: set(descendants(os.getpid())) <= before)
    assert os.environ == mine


@pytest.mark.slow
def test_neither_server_nor_client_take_settings_that_the_user_has_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From variables, and from files in the current folder."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    mine = f"sqlite+aiosqlite:///{tmp_path}/mine.db"
    theirs = {
        "PREFECT_API_DATABASE_CONNECTION_URL": mine,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": mine,
        "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
        "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
        "PREFECT_API_AUTH_STRING": "me:another",
        "PREFECT_API_KEY": "pnu_key",
        "PREFECT_API_SSL_CERT_FILE": "/nowhere/cert.pem",
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Host": "example.org"}',
        "PREFECT_API_REQUEST_TIMEOUT": "0.000001",
        "WEB_CONCURRENCY": "3",
        "ALL_PROXY": "socks5://127.0.0.1:9",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "project"
    project.mkdir()
    (project / "prefect.toml").write_text(f'[server.database]\nconnection_url = "{mine}"\n')
    (project / ".env").write_text(f"PREFECT_SERVER_DATABASE_CONNECTION_URL={mine}\n")
    monkeypatch.chdir(project)
    with prefect_server(tmp_path / "prefect") as api:
        Flow(lambda: None, name="text-to-image")()
        assert ask(api, "/flows/count", {}) == 1
    assert not (tmp_path / "mine.db").exists()
    assert {name: os.environ[name] for name in theirs} == theirs


@pytest.mark.slow
def test_a_database_that_only_prefect_finds_damaged_is_set_aside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Like one of a later version of Prefect."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('of another time')")
    with prefect_server(tmp_path) as api:
        assert is_healthy(api, 10)
    assert "a new one begins" in capsys.readouterr().err
    assert len(list(tmp_path.glob("prefect.db.damaged-*"))) == 1


def test_a_server_that_is_killed_while_it_answers_fails_no_run_that_ended_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_part() -> None:
            asking, _ = listener.accept()
            with asking:
                asking.recv(65536)
                asking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1")

        threading.Thread(target=answer_in_part).start()
        drain(f"http://127.0.0.1:{listener.getsockname()[1]}/api", limit_s=1)


def test_beside_a_server_that_is_given_prefect_has_its_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it warns that it cannot make it."""
    monkeypatch.setenv("PREFECT_HOME", "")
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    for name in ("PREFECT_API_REQUEST_TIMEOUT", "PREFECT_CLIENT_MAX_RETRIES"):
        monkeypatch.setenv(name, "7")
    with prefect_server(tmp_path / "data" / "prefect") as api:
        assert api == os.environ["PREFECT_API_URL"]
        assert Path(os.environ["PREFECT_HOME"]).is_dir()
        assert os.environ["PREFECT_API_REQUEST_TIMEOUT"] == "7", "the user's own"
