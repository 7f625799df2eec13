"""A webhook for failed flows: a POST to the URL in TLD_WEBHOOK, which no log or message shows."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.request
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_UI_URL

from data_catalog.redaction import redact_credentials

_TIMEOUT_S = 10


def notify_webhook(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Post {"flow", "run", "state", "message", "url"} as JSON when a flow has failed or crashed. A
    URL that does not answer is ignored."""
    url = os.environ.get("TLD_WEBHOOK")
    if not url:
        return
    report = {
        "flow": flow.name,
        "run": flow_run.name,
        "state": state.name,
        "message": redact_credentials(state.message or ""),
        "url": redact_credentials(f"{PREFECT_UI_URL.value() or ''}/runs/flow-run/{flow_run.id}"),
    }
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        request = urllib.request.Request(
            url, json.dumps(report).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
