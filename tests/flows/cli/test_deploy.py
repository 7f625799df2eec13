"""A run as deployments of a real Prefect server: registered, then started through its API in a
worker."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.cli.deploy import _rooted, _server, deploy
from flows.orchestration.prefect_server import free_port, server_command, server_environment
from flows.terminal.errors import UserError
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.support.command import CANARY, ENVIRONMENT, REPOSITORY, command
from tests.support.prefect_api import Api, client_of, wait_for
from tests.support.small import TINY, small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook, and the reports that it received."""
    posted: list[dict[str, str]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token-of-the-hook", posted
        server.shutdown()


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, webhook: tuple[str, object]
) -> Iterator[dict[str, str]]:
    """Of a client of a Prefect server that stays, with a worker of the pool `tld`."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    ours = {
        **server_environment(home, port, ui=False),
        "PREFECT_SERVER_API_AUTH_STRING": f"me:{CANARY}",
    }
    environment = {
        **ENVIRONMENT,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": ours["PREFECT_SERVER_API_AUTH_STRING"],
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "TLD_WEBHOOK": webhook[0],
    }
    server = subprocess.Popen(server_command(port), env=ours)
    worker = None
    try:
        wait_for(lambda: healthy(environment["PREFECT_API_URL"]))
        start = [
            str(Path(sys.executable).parent / "prefect"),
            "worker",
            "start",
            "--pool",
            "tld",
            "--type",
            "process",
        ]
        with (home / "worker.log").open("w") as log:
            worker = subprocess.Popen(start, env=environment, cwd=home, stdout=log, stderr=log)
        yield environment
    finally:
        for process in (worker, server):
            if process:
                process.terminate()
                process.wait(30)


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def protected(api: str) -> str:
    """An address with a password in it."""
    return api.replace("http://", f"http://me:{CANARY}@")


def deployed(environment: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("deploy", *words),
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def api(environment: dict[str, str]) -> Iterator[Api]:
    with client_of(
        environment["PREFECT_API_URL"], environment["PREFECT_API_AUTH_STRING"]
    ) as client:
        yield Api(client)


def test_what_cannot_be_deployed_is_told(environment: dict[str, str]) -> None:
    nowhere = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    errors = deployed(nowhere, TINY).stderr
    assert "start one with\n  prefect server start" in errors
    assert "export PREFECT_SERVER_API_AUTH_STRING=tld:PASSWORD" in errors
    protected_address = protected(environment["PREFECT_API_URL"])
    for address, why in (
        (f"http://me:{CANARY}@127.0.0.1:{free_port()}/api", "refused"),
        (f"{protected_address}/no", "returns 404"),
    ):
        gone = deployed({**environment, "PREFECT_API_URL": address}, TINY)
        assert gone.returncode == 2
        assert "no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:" in gone.stderr
        assert why in gone.stderr
        assert CANARY not in gone.stderr
    wrong = deployed(environment, TINY, "--cron", "often", "--gpus", "0")
    assert wrong.returncode == 2
    assert "--gpus must be from 1 to 10000, got 0" in wrong.stderr
    assert "--cron: 'often' is no schedule" in wrong.stderr


def test_the_run_and_its_stages_are_deployed_and_started_from_prefect(
    environment: dict[str, str], api: Api, tmp_path: Path, webhook: tuple[str, list[dict[str, str]]]
) -> None:
    """A whole run of a deployment, cancelled and resumed: tools/stack_test.py, on PostgreSQL."""
    address = {"PREFECT_API_URL": protected(environment["PREFECT_API_URL"])}
    done = deployed({**environment, **address}, TINY, *small(tmp_path / "data", download__limit=60))
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "text-to-image/tiny" in done.stdout
    assert "one-stage/tiny-nightly" in done.stdout
    form = api.get("/deployments/name/text-to-image/tiny")["parameter_openapi_schema"]
    choices, nothing = form["properties"]["until"]["anyOf"]
    assert choices["enum"] == ["download", "encode", "train", "distill", "evaluate"]
    assert nothing == {"type": "null"}, "all stages"
    assert form["definitions"]["TrainConfig"]["properties"]["lr"]["description"]
    assert (
        api.get("/deployments/name/one-stage/tiny-nightly")["schedules"][0]["schedule"]["cron"]
        == "0 3 * * *"
    )
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    assert wait_for(
        lambda: api.client.post("/flow_runs/filter", json=scheduled).raise_for_status().json()
    )
    assert api.get("/concurrency_limits/tag/gpu")["concurrency_limit"] == 1

    runs = api.start("one-stage/tiny-evaluate"), api.start("one-stage/tiny-download")
    assert [api.end(run) for run in runs] == ["FAILED", "COMPLETED"]
    (message,) = wait_for(lambda: webhook[1])
    assert message["state"] == "Failed"
    assert "evaluate needs the output of encode first" in message["message"]
    (page,) = api.client.post("/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 1}).json()
    assert "| download | fresh | 60 |" in page["data"]
    assert (
        "token-of-the-hook"
        not in page["data"] + (Path(environment["PREFECT_HOME"]) / "worker.log").read_text()
    )


@pytest.mark.parametrize("place", ["127.0.0.1:4200,/api", "[::1/api", "127.0.0.1:1/api"])
def test_an_address_that_is_none_is_the_users_mistake(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:{CANARY}@{CANARY}@{place}")
    with pytest.raises(
        UserError, match=r"no Prefect server answers at PREFECT_API_URL=http://[^c]"
    ) as error:
        _server()
    assert CANARY not in str(error.value)


def test_paths_mean_the_same_to_a_worker_and_what_has_a_name_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shapes", "shapes-vae", "clip"):
        Path(name).mkdir()
    config = _rooted(
        load_config(TINY, ["root=s3://bucket/run", "cache.folder=copies", "encode.clip=clip"])
    )
    assert config["cache"]["folder"] == str(tmp_path / "copies")
    assert config["encode"]["clip"] == str(tmp_path / "clip")
    assert (config["download"]["urls"], config["encode"]["vae"]) == ("shapes", "shapes-vae")
    assert _rooted(load_config(TINY, ["root=data"]))["cache"]["folder"] == "~/.cache/tld"


def test_a_deployment_has_all_phases_with_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fine.csv").touch()
    phase = ["phases.fine.download.urls=fine.csv", "phases.fine.train.lr=1e-5"]
    config = _rooted(load_config(TINY, phase))
    assert config["download"]["urls"] == "shapes"
    assert config["phases"] == {
        "fine": {"download": {"urls": str(tmp_path / "fine.csv")}, "train": {"lr": 1e-5}}
    }
    again = RunConfig.model_validate(config)
    assert [run.train.lr for run in again.chain] == [5e-3, 1e-5]


def test_a_deployment_takes_no_secret_in_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.deploy._server", lambda: "a server")
    with pytest.raises(UserError, match="which a deployment would show to others") as refused:
        deploy(TINY, f"download.urls=https://host/t.csv?key={CANARY}")
    assert CANARY not in str(refused.value)
