"""A test of the services in docker/compose.yaml without containers (`make stack-test`).

All services are started on loopback by the commands of compose.yaml, and one run goes through all
of them. PostgreSQL is Debian's, SeaweedFS comes from PyPI. The test takes minutes, so it is not in
tests/, where pytest would collect it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
import yaml

from pipeline.config.load import load_config
from tests.support.compose import Compose, compose, started, wait_until_healthy
from tests.support.prefect_api import Api, client_of, wait_for
from tests.support.small import TINY, small

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.skipif(
    not _POSTGRES,
    reason="the stack needs PostgreSQL in /usr/lib/postgresql: apt-get install postgresql",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """All services but `serve`, in the order of docker/up.sh."""
    folder = tmp_path_factory.mktemp("stack")
    services = compose(folder, {"TLD_CONF": "small.yaml"})
    long = {"train__steps": 1200, "train__checkpoint_every": 50, "train__validate_every": 1200}
    few = {"download__limit": 60, "evaluate__prompts": 4, "train__sample_every": 1200}
    settings = load_config(TINY, small(Path("unused"), **long, **few)).model_dump(mode="json")
    (folder / "app/conf/small.yaml").write_text(yaml.safe_dump(settings))
    with postgres(services), objects(services):
        services.run("bucket")
        with services.up("prefect"), services.up("mlflow"), services.up("worker"):
            assert "text-to-image/tiny" in services.run("deploy")
            yield services


@contextlib.contextmanager
def postgres(stack: Compose) -> Iterator[None]:
    """PostgreSQL as its image starts it: the user, the first database, then the script of
    databases. It refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    service = stack.read["services"]["postgres"]
    variables, command = service["environment"], _POSTGRES[-1]
    folder = Path(
        tempfile.mkdtemp(prefix="tld-postgres-")
    )  # other users may not enter pytest's folders
    try:
        (folder / "password").write_text(stack.secret("postgres_password"))
        if user:
            shutil.chown(folder, user)
            shutil.chown(folder / "password", user)
        first = [
            str(command / "initdb"),
            "--pgdata=db",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=scram-sha-256",
        ]
        first += [f"--username={variables['POSTGRES_USER']}", "--pwfile=password", "--no-sync"]
        subprocess.run(first, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
        where = ["-D", "db", "-h", stack.address("postgres"), "-p", "5432", "-k", str(folder)]
        log, environment = (
            stack.log("postgres"),
            {"PATH": f"{command}:{os.environ['PATH']}", **server(stack)},
        )
        with started(
            [str(command / "postgres"), *where], environment, folder, log, user
        ) as process:
            _, check = service["healthcheck"]["test"]
            wait_until_healthy("postgres", process, ["sh", "-c", check], environment, log)
            query(stack, "postgres", f"CREATE DATABASE {variables['POSTGRES_DB']}")
            for config in service["configs"]:
                query(
                    stack,
                    variables["POSTGRES_DB"],
                    stack.read["configs"][config["source"]]["content"],
                )
            yield
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def objects(stack: Compose) -> Iterator[None]:
    """The object store, as the entry point of its image starts it."""
    address, environment, log = (
        stack.address("objects"),
        stack.environment("objects"),
        stack.log("objects"),
    )
    words = stack.words("objects")
    here = [f"-ip={address}", "-volume.preStopSeconds=1"]
    with started(["weed", *words, *here], environment, stack.folder, log) as process:
        _, check = stack.read["services"]["objects"]["healthcheck"]["test"]
        command = ["sh", "-c", check.replace("127.0.0.1", address)]
        wait_until_healthy("objects", process, command, environment, log)
        yield


def server(stack: Compose) -> dict[str, str]:
    """The environment in which PostgreSQL's programs find the server."""
    user = stack.read["services"]["postgres"]["environment"]["POSTGRES_USER"]
    password = stack.secret("postgres_password")
    return {
        "PGHOST": stack.address("postgres"),
        "PGPORT": "5432",
        "PGUSER": user,
        "PGPASSWORD": password,
    }


def query(stack: Compose, database: str, sql: str) -> list[str]:
    """Rows of a query, with columns separated by bars."""
    words = [
        str(_POSTGRES[-1] / "psql"),
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "-v",
        "ON_ERROR_STOP=1",
    ]
    asked = subprocess.run(
        [*words, "--dbname", database, "--command", sql],
        env=server(stack),
        check=True,
        capture_output=True,
        text=True,
    )
    return asked.stdout.splitlines()


def artifacts(stack: Compose) -> list[str]:
    """The files in MLflow's bucket: experiment/run/artifacts/…"""
    keys = {"key": stack.secret("objects_key_id"), "secret": stack.secret("objects_key")}
    endpoint = {"endpoint_url": f"http://{stack.address('objects')}:8333"}
    store: Any = fsspec.filesystem("s3", **keys, client_kwargs=endpoint)
    return [str(path) for path in store.find("mlflow")]


def cancelled_in_training(stack: Compose, api: Api) -> int:
    """Start a run and cancel it as Prefect's page does. Returns the step of its last checkpoint."""
    model = stack.folder / "data/workspace/03_model"
    run = api.start("text-to-image/tiny")
    wait_for(lambda: list(model.glob("*/checkpoints/step-*.pt")))
    answer = api.client.post(
        f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}, "force": True}
    )
    answer.raise_for_status()
    assert api.end(run) == "CANCELLED"
    *_, checkpoint = sorted(model.glob("*/checkpoints/step-*.pt"))
    return int(checkpoint.stem.partition("-")[2])


def test_a_run_that_was_cancelled_is_resumed_and_goes_through_every_service(stack: Compose) -> None:
    with client_of(
        stack.environment("worker")["PREFECT_API_URL"], stack.secret("prefect_auth_string")
    ) as client:
        api = Api(client)
        reached = cancelled_in_training(stack, api)
        run = api.start("text-to-image/tiny")
        ended = api.end(run)
        wait_for(
            lambda: query(stack, "prefect", "select 1 from flow_run where state_type = 'SCHEDULED'")
        )
        (page, *_) = client.post(
            "/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 1}
        ).json()
    assert ended == "COMPLETED", stack.log("worker").read_text()[-3000:]
    assert query(stack, "prefect", f"select state_type from flow_run where id = '{run}'") == [
        "COMPLETED"
    ]
    assert "| evaluate | fresh | 4 |" in page["data"]
    (events,) = (stack.folder / "data/workspace/03_model").glob("*/events.jsonl")
    events_now = map(json.loads, events.read_text().splitlines())
    assert min(event["done"] for event in events_now if event["kind"] == "progress") > reached, (
        "it resumed from the checkpoint"
    )

    (parent,) = query(
        stack, "mlflow", "select run_uuid from runs where name = 'tiny' and status = 'FINISHED'"
    )
    children = query(
        stack,
        "mlflow",
        "select stage.value, run_uuid from tags stage join tags parent using (run_uuid) join runs "
        "using (run_uuid)"
        f" where parent.key = 'mlflow.parentRunId' and parent.value = '{parent}' and stage.key = "
        "'tld.stage'"
        " and runs.status = 'FINISHED'",
    )
    stages = dict(row.split("|") for row in children)
    assert set(stages) == {"download", "encode", "train", "evaluate"}
    names = query(
        stack, "mlflow", f"select distinct key from metrics where run_uuid = '{stages['train']}'"
    )
    assert {"loss", "system/cpu_utilization_percentage"} <= set(names)

    files = artifacts(stack)
    for stage, run_id in stages.items():
        assert [path for path in files if path.endswith(f"{run_id}/artifacts/manifest.json")], stage
    assert [path for path in files if path.endswith(f"{parent}/artifacts/grid.png")]
    assert [path for path in files if "/models/" in path and path.endswith(".safetensors")]

    with stack.up("serve"):
        answer = httpx.post(
            f"http://{stack.address('serve')}:8000/pictures",
            json={"prompt": "a small red star", "steps": 2},
            headers={"Authorization": f"Bearer {stack.secret('serve_tokens')}"},
            timeout=60,
        )
    (image,) = answer.raise_for_status().json()["pictures"]
    assert base64.b64decode(image["png"]).startswith(_PNG)


def test_no_log_of_a_service_tells_a_secret(stack: Compose) -> None:
    logs = {path.name: path.read_text() for path in (stack.folder / "logs").iterdir()}
    assert {"prefect.log", "mlflow.log", "worker.log", "deploy.log"} <= set(logs)
    for secret in ("postgres_password", "objects_key", "serve_tokens"):
        assert not [name for name, text in logs.items() if stack.secret(secret) in text], secret
