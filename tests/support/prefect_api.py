"""A Prefect server as its own page asks it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx

_TIMEOUT_S = 180


def wait_for(what: Callable[[], Any]) -> Any:
    """What comes at last."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


class _Patient(httpx.HTTPTransport):
    """Asks again while the server's database is busy, as Prefect's own client does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The first answer that is another than 503."""
        send = super().handle_request
        answer: httpx.Response = wait_for(
            lambda: got if (got := send(request)).status_code != 503 else None
        )
        return answer


@contextlib.contextmanager
def client_of(address: str, auth_string: str) -> Iterator[httpx.Client]:
    """One that knows the password `user:password`, and has a token against requests that are forged
    across sites."""
    user, _, password = auth_string.partition(":")
    with httpx.Client(
        base_url=address, auth=(user, password), timeout=_TIMEOUT_S, transport=_Patient()
    ) as client:
        token = (
            client.get("/csrf-token", params={"client": "tests"}).raise_for_status().json()["token"]
        )
        client.headers.update({"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": token})
        yield client


class Api:
    """What Prefect's own page asks its server."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def start(self, deployment: str, **changed: Any) -> UUID:
        found = self.get(f"/deployments/name/{deployment}")
        parameters = {**found["parameters"], **changed}
        made = self.client.post(
            f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters}
        )
        return UUID(made.raise_for_status().json()["id"])

    def state(self, run: UUID) -> str:
        return str(self.get(f"/flow_runs/{run}")["state"]["type"])

    def end(self, run: UUID) -> str:
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return str(wait_for(lambda: state if (state := self.state(run)) in ends else None))
