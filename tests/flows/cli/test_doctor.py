"""`tld doctor`, `tld --version` and the completion of a shell, as a user types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.config.distribution import tld_version
from tests.support.command import CANARY, ENVIRONMENT, tld


def test_an_installation_that_works() -> None:
    done = tld("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["problems"] == []
    assert facts["tld"].startswith(f"{tld_version()} in ")
    assert facts["mlflow store"] == "SQLite in each workspace"
    assert facts["notices"] == "none"
    assert facts["prefect server"] == "each command starts one of its own"
    assert CANARY not in done.stdout + done.stderr


def test_it_names_the_variables_that_were_set_and_not_those_that_tld_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    variables = json.loads(tld("doctor", "--json").stdout)["variables"].split(", ")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in variables
    assert not {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"} & {*variables}


def test_servers_that_do_not_answer_are_problems_and_nothing_shows_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PREFECT_API_URL", f"http://me:{CANARY}@127.0.0.1:9/api")
    uri = f"postgresql://me:{CANARY}@127.0.0.1:9/mlflow"
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_TRACKING_URI", uri)
    monkeypatch.setitem(ENVIRONMENT, "TLD_WEBHOOK", f"slak://{CANARY}/b/c")
    done = tld("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "TLD_WEBHOOK begins with slak://, and is no address" in done.stderr
    assert "prefect server    broken" in done.stdout
    assert "mlflow store      broken" in done.stdout
    assert "tld: no Prefect server answers at PREFECT_API_URL=http://" in done.stderr
    assert "MLFLOW_TRACKING_URI" in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert not [*tmp_path.iterdir()]


def test_the_version() -> None:
    done = tld("--version")
    assert (done.returncode, done.stdout) == (0, f"{tld_version()}\n")


def test_bash_completes_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path))
    done = tld("--install-completion", "--shell", "bash")
    assert done.returncode == 0, done.stderr
    script = tmp_path / ".local/share/bash-completion/completions/tld"
    typed = "COMP_WORDS=(tld doc); COMP_CWORD=1; COMP_LINE='tld doc'; COMP_POINT=7"
    words = subprocess.run(
        [
            "bash",
            "-c",
            f"source {script}; {typed}; $(complete -p tld | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${{COMPREPLY[@]}}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert words.stdout.split() == ["doctor"]
