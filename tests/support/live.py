"""A web application on a real port of loopback, in a thread; and a client as plain as can be."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from flows.orchestration.prefect_server import free_port
from flows.serve.app import Service
from flows.serve.connections import LimitedProtocol
from pipeline.compute.polling import wait_until


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def live(service: Service, protocol: type[LimitedProtocol] = LimitedProtocol) -> Iterator[int]:
    """The port on which a service answers."""
    with live_app(service.app, protocol) as port:
        try:
            yield port
        finally:
            service.batches.close()


@contextlib.contextmanager
def live_app(app: FastAPI, protocol: type[LimitedProtocol] = LimitedProtocol) -> Iterator[int]:
    """The port on which an application answers."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=port,
            http=protocol,
            ws="none",
            log_level="critical",
            timeout_keep_alive=300,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive(), 30, every_s=0.01)
    assert server.started
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    raw: bytes = b"",
) -> Answer:
    """One request: `body` as JSON, or `raw` bytes."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ) as connection:
        return ask_on(connection, method, path, body, headers, raw)


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    raw: bytes = b"",
) -> Answer:
    """One request on a connection that stays open."""
    sent = raw or (json.dumps(body).encode() if body is not None else None)
    connection.request(method, path, sent, {"Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    return Answer(answer.status, dict(answer.getheaders()), answer.read())
