"""Requests to our own Prefect server, without Prefect's client.

Prefect's client retries for minutes and uses the proxies of the environment.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import time
from typing import Any
from urllib.parse import urlsplit


def ask(api: str, path: str, body: object = None, limit_s: float = 10.0) -> Any:
    """The JSON that the server answers. A body is posted. Raises OSError, HTTPException or
    ValueError if the request fails."""
    address = urlsplit(api)
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    if body is not None:
        client = secrets.token_hex(8)
        token = ask(api, f"/csrf-token?client={client}", limit_s=limit_s)
        if isinstance(token, dict):
            headers |= {
                "Prefect-Csrf-Client": client,
                "Prefect-Csrf-Token": str(token.get("token")),
            }
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=limit_s)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request(
            "GET" if body is None else "POST", f"{address.path}{path}", data, headers
        )
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise http.client.HTTPException(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)


def is_healthy(api: str, limit_s: float) -> bool:
    """Whether the server answers."""
    try:
        return ask(api, "/health", limit_s=limit_s) is True
    except (OSError, http.client.HTTPException, ValueError):
        return False


def drain(api: str, limit_s: float) -> None:
    """Send what Prefect's client still buffers, then wait until the server has recorded all task
    runs: until their count is stable for a second, or the limit is reached."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    deadline, last, unchanged = time.monotonic() + limit_s, -1, 0
    APILogWorker.drain_all(timeout=min(5.0, limit_s))
    EventsWorker.drain_all(timeout=limit_s)
    # A successful run must not fail because of this.
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        while time.monotonic() < deadline and unchanged < 2:
            count = ask(api, "/task_runs/count", {})
            unchanged = unchanged + 1 if count == last else 0
            last = count
            time.sleep(0.5)
