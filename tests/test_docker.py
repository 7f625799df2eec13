"""The files of docker/ keep the rules of their trade, and each other's word. No container engine
runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import TRY_INSTALL, compose_file, copy_into_image, entrypoint

ROOT = Path(__file__).parents[1]
stages, context = TRY_INSTALL["stages"], TRY_INSTALL["context"]
COMPOSE = compose_file({})
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BIN = Path(sys.executable).parent


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    subprocess.run([BIN / "hadolint", ROOT / "docker/Dockerfile"], check=True)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_are_valid(name: str) -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    subprocess.run([BIN / "check-jsonschema", *schema, ROOT / "docker" / name], check=True)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_runs_as_nobody_special_from_a_given_base(target: str) -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    final = stages(dockerfile)[target]
    users = [line for line in final if line.startswith("USER")]
    assert users[-1] == "USER 10001"
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert not any(tool in line for line in final for tool in ("pip install", "build-essential"))
    packages = [line for line in final if "apt-get install" in line]
    assert len(packages) == (target == "cuda"), "only torch.compile on a GPU needs a compiler"
    assert "FROM ${BASE} AS runtime" in dockerfile
    assert "ARG BASE\n" in dockerfile, "a base without a default cannot be a moving one"


def test_a_build_sees_what_the_package_is_made_of_and_no_more() -> None:
    seen = {path.as_posix() for path in context()}
    assert {
        "requirements.lock",
        "flows/serve/page/page.js",
        "conf/tiny.yaml",
        "docker/entrypoint.sh",
    } <= seen
    assert not any(path.startswith(("tests/", "docs/", "docker/secrets")) for path in seen)


def test_the_configs_of_an_image_are_files(tmp_path: Path) -> None:
    """In a checkout those of conf/ are links into a package."""
    copy_into_image(tmp_path)
    configs = sorted((tmp_path / "app/conf").glob("*.yaml"))
    assert {
        "tiny.yaml",
        "short-prompts.yaml",
        "emoji.yaml",
        "tld-100m.yaml",
        "original-100m.yaml",
        "modern-250m.yaml",
    } <= {path.name for path in configs}
    assert all("\nname: " in path.read_text(encoding="utf-8") for path in configs)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_make_serve_takes_gpus_where_make_up_did(target: str) -> None:
    told = subprocess.check_output(
        ["make", "-n", "serve", f"TLD_TARGET={target}"], cwd=ROOT, text=True
    )
    assert ("--file docker/compose.gpu.yaml" in told) == (target == "cuda")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_open_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    once = "setup" in service.get("profiles", [])
    assert once or service["restart"] == "unless-stopped"
    ours = service["image"].startswith("tld:")
    assert once or "healthcheck" in service or ours, "our image has a health check of its own"
    for volume in service.get("volumes", []):
        assert volume.partition(":")[0] in COMPOSE["volumes"], (
            "named volumes, no folders of the host"
        )
    for secret in service.get("secrets", []):
        assert COMPOSE["secrets"][secret]["file"] == f"secrets/{secret}"
    environment = service.get("environment", {})
    assert not [
        key for key in environment if key.endswith(("PASSWORD", "SECRET_ACCESS_KEY", "TOKEN"))
    ]
    needed = {
        value.rpartition("/")[2]
        for value in environment.values()
        if value.startswith("/run/secrets/")
    }
    assert needed <= set(service.get("secrets", []))


def test_secrets_of_the_host_are_in_no_commit() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "docker/secrets/postgres_password", "docker/.env"],
        cwd=ROOT,
        capture_output=True,
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert len(ignored.stdout.splitlines()) == 2


def test_secrets_reach_the_command_as_variables_and_not_as_arguments(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pa ss$word\n")
    command = [sys.executable, "-c", "import os, sys; print(os.environ, sys.argv)"]
    told = subprocess.run(
        ["sh", "-c", entrypoint(tmp_path), "entrypoint", *command],
        env={
            **os.environ,
            "POSTGRES_PASSWORD_FILE": f"{tmp_path}/password",
            "MLFLOW_DATABASE": "postgres/mlflow",
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "'POSTGRES_PASSWORD': 'pa ss$word'" in told
    assert (
        "'MLFLOW_BACKEND_STORE_URI': 'postgresql+psycopg2://tld:pa ss$word@postgres/mlflow'" in told
    )
    assert told.rstrip().endswith("['-c']")
