"""Notices of failed flows to the address in TLD_WEBHOOK, which no log or message shows.

A plain http or https URL gets a POST of JSON. Addresses of chat services, of mail and of others are
those of Apprise, such as slack:// and mailto://.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_UI_URL

from data_catalog.redaction import redact_credentials

if TYPE_CHECKING:
    from apprise import Apprise

_POSTED = ("http", "https")
_TIMEOUT_S = 10


def notify_webhook(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Send flow, run, state, message and url when a flow has failed or crashed: as JSON, or as the
    text of a message. An address that does not answer or cannot be used is ignored."""
    address = os.environ.get("TLD_WEBHOOK")
    if not address:
        return
    report = {
        "flow": flow.name,
        "run": flow_run.name,
        "state": state.name,
        "message": redact_credentials(state.message or ""),
        "url": redact_credentials(f"{PREFECT_UI_URL.value() or ''}/runs/flow-run/{flow_run.id}"),
    }
    if _scheme(address) in _POSTED:
        _post(address, report)
    else:
        _send(address, report)


def check_webhook() -> str:
    """Where notices go, without the address. Raises ValueError if TLD_WEBHOOK cannot be used."""
    address = os.environ.get("TLD_WEBHOOK")
    if not address:
        return "none"
    scheme = _scheme(address)
    if scheme in _POSTED:
        return f"JSON to a URL ({scheme})"
    with _without_logs():
        if _service(address) is None:
            begins = f"begins with {scheme}://" if scheme else "has no scheme, such as https://"
            raise ValueError(
                f"TLD_WEBHOOK {begins}, and is no address that notices can be sent to: set it to "
                "an http or https URL, or to an address as https://appriseit.com/services lists "
                "them"
            )
    return f"messages by {scheme}://"


def _scheme(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else ""


def _post(url: str, report: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        request = urllib.request.Request(
            url, json.dumps(report).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()


def _send(address: str, report: dict[str, Any]) -> None:
    """Send a message by Apprise, which reports failures in its log alone."""
    from apprise import NotifyFormat, NotifyType

    with _without_logs():
        if service := _service(address):
            service.notify(
                title=f"{report['flow']} {report['run']}: {report['state']}",
                body=f"{report['message']}\n{report['url']}",
                notify_type=NotifyType.FAILURE,
                body_format=NotifyFormat.TEXT,
            )


def _service(address: str) -> Apprise | None:
    """The receiver of an address, or None if Apprise knows no such one."""
    from apprise import Apprise

    service = Apprise()
    return service if service.add(address) else None


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keep Apprise from logging, because its lines show addresses."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
