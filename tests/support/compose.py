"""docker/compose.yaml without containers: each service a process of this machine, with the command,
the environment and the ports that it has there, and with the entry point and the health check of
the Dockerfile.

What a container engine gives is given otherwise: each service has an address of loopback of its
own, which stands where its host name stood; secrets and volumes are folders below one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import REPOSITORY

DOCKER = REPOSITORY / "docker"
TRY_INSTALL = runpy.run_path(
    str(DOCKER / "try_install.py")
)  # `docker` is also the name of a library
_TIMEOUT_S = 120
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_BIN = Path(sys.executable).parent


def entrypoint(secrets: Path) -> str:
    """docker/entrypoint.sh, for secrets that lie elsewhere."""
    script = (DOCKER / "entrypoint.sh").read_text().replace("/run/secrets/", f"{secrets}/")
    return script.replace(r"\/run\/secrets\/", str(secrets).replace("/", r"\/") + r"\/")


def compose_file(variables: Mapping[str, str]) -> dict[str, Any]:
    """compose.yaml, with variables or their defaults put in."""
    text = (DOCKER / "compose.yaml").read_text()
    read: dict[str, Any] = yaml.safe_load(
        _VARIABLE.sub(lambda found: variables.get(found[1], found[2]), text)
    )
    return read


@dataclass(frozen=True, slots=True)
class Compose:
    """The services of compose.yaml, below a folder: docker/secrets, data, app (where an image has
    conf), logs."""

    folder: Path
    read: Mapping[str, Any]

    def address(self, service: str) -> str:
        """Where a service listens; another for each process of tests."""
        own = os.getpid()
        return f"127.{1 + own // 250 % 250}.{own % 250}.{2 + list(self.read['services']).index(service)}"

    def environment(self, service: str) -> dict[str, str]:
        """Of its process: the Dockerfile's and compose.yaml's, and of this machine only where the
        programs are."""
        image = dict(re.findall(r"(\w+)=(\S+)", _instruction("ENV PATH")))
        told = image | self.read["services"][service].get("environment", {})
        told = {
            name: self._here(value).replace("127.0.0.1", self.address(service))
            for name, value in told.items()
        }
        told |= {
            name: self.address(value)
            for name, value in told.items()
            if name.endswith("_DATABASE_HOST")
        }
        home = self.folder / "home" / service
        home.mkdir(parents=True, exist_ok=True)
        modules = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        here = {"PATH": f"{_BIN}:{os.environ['PATH']}", "PYTHONPATH": modules, "HOME": str(home)}
        # In containers it listens everywhere, and no port of it is published.
        return {
            **told,
            **here,
            "OMP_NUM_THREADS": "1",
            "PREFECT_WORKER_WEBSERVER_HOST": self.address(service),
        }

    def command(self, service: str) -> list[str]:
        """Its process: the image's entry point with the service's command."""
        return [
            "sh",
            "-c",
            entrypoint(self.folder / "docker/secrets"),
            "entrypoint",
            *self.words(service),
        ]

    def words(self, service: str) -> list[str]:
        """Its command, for what lies elsewhere here."""
        told = self.read["services"][service]
        mounted = {config["target"]: config["source"] for config in told.get("configs", [])}
        words = [
            str(DOCKER / self.read["configs"][mounted[word]]["file"])
            if word in mounted
            else self._here(word)
            for word in told["command"]
        ]
        return [word.replace("0.0.0.0", self.address(service)) for word in words]

    def secret(self, name: str) -> str:
        return (self.folder / "docker/secrets" / name).read_text()

    def run(self, service: str) -> str:
        """As `docker compose run`: to its end; what it said."""
        done = subprocess.run(
            self.command(service),
            env=self.environment(service),
            cwd=self.folder / "app",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.log(service).write_text(done.stdout)
        assert done.returncode == 0, (
            f"{service} ended with exit code {done.returncode}:\n{done.stdout}"
        )
        return done.stdout

    @contextlib.contextmanager
    def up(self, service: str) -> Iterator[None]:
        """As `docker compose up`: until the end of the block, healthy."""
        with started(
            self.command(service), self.environment(service), self.folder / "app", self.log(service)
        ) as made:
            check = json.loads(_instruction("HEALTHCHECK").partition("CMD ")[2])
            wait_until_healthy(service, made, check, self.environment(service), self.log(service))
            yield

    def log(self, service: str) -> Path:
        return self.folder / "logs" / f"{service}.log"

    def _here(self, text: str) -> str:
        hosts = "|".join(self.read["services"])
        text = re.sub(rf"\b({hosts})(?=:\d|/)", lambda found: self.address(found[0]), text)
        text = text.replace("/run/secrets/", f"{self.folder}/docker/secrets/")
        return re.sub(r"(?<![\w.])/data\b", str(self.folder / "data"), text)


def copy_into_image(folder: Path) -> None:
    """What the image holds below /app, with links as links."""
    lines = TRY_INSTALL["stages"]((DOCKER / "Dockerfile").read_text(encoding="utf-8"))["runtime"]
    for line in (line for line in lines if re.match(r"COPY \S+ /app/", line)):
        _, source, target = line.split()
        shutil.copytree(REPOSITORY / source, f"{folder}{target}", symlinks=True)


def compose(folder: Path, variables: Mapping[str, str]) -> Compose:
    """All that is there before the first service: configurations, and secrets as `make up` makes
    them."""
    for name in ("logs", "data", "docker", "engine"):
        (folder / name).mkdir()
    copy_into_image(folder)
    shutil.copy(DOCKER / "up.sh", folder / "docker")
    engine = folder / "engine/docker"  # does nothing, and knows one digest
    engine.write_text("#!/bin/sh\necho sha256:0\n")
    engine.chmod(0o755)
    path = f"{engine.parent}:{os.environ['PATH']}"
    subprocess.run(
        [folder / "docker/up.sh"], env={"PATH": path}, check=True, stdout=subprocess.DEVNULL
    )
    return Compose(folder, compose_file(variables))


@contextlib.contextmanager
def started(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which is asked to stop at the end of the block, as an
    engine does."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=out,
            user=user,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_healthy(
    service: str,
    process: subprocess.Popen[bytes],
    check: list[str],
    environment: Mapping[str, str],
    log: Path,
) -> None:
    """Until its health check passes. Where it does not, the end of its log is the news."""
    deadline = time.monotonic() + _TIMEOUT_S
    while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
        alive = process.poll() is None and time.monotonic() < deadline
        assert alive, f"{service} did not become healthy:\n{log.read_text()[-3000:]}"
        time.sleep(0.3)


def _instruction(start: str) -> str:
    """A line of the image that runs here."""
    final = TRY_INSTALL["stages"]((DOCKER / "Dockerfile").read_text())["cpu"]
    return str([line for line in final if line.startswith(start)][-1])
