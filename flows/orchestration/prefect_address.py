"""Checks of the Prefect server that PREFECT_API_URL names, before a run begins."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data_catalog.redaction import redact_credentials
from flows.orchestration.proxies import unusable_proxies
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 10.0


def check_address(url: str) -> str:
    """The address of a server, without its password. Raises UserError if it does not answer."""
    import httpx

    shown = f"PREFECT_API_URL={redact_credentials(url)}"
    no_answer = f"no Prefect server answers at {shown}"
    if proxies := unusable_proxies():
        raise UserError(
            f"{proxies[0]} names a proxy that Prefect's client cannot use (HTTP only): unset it"
        )
    try:
        _ = urlsplit(url).port  # raises ValueError if it is not a number
        health = _ask("/health", _TIMEOUT_S)
        if health.is_error:
            raise UserError(
                _refusal(health, shown) or f"{no_answer}: its /health returns {health.status_code}"
            )
        if health.text.strip() != "true":
            raise UserError(
                f"{no_answer}: another service answers there; the address must end in /api"
            )
        if refusal := _refusal(_ask("/admin/version", _TIMEOUT_S), shown):
            raise UserError(refusal)
    except TimeoutError:
        raise UserError(
            f"{no_answer}: it did not answer within {_TIMEOUT_S:.0f} s. Restart it, or unset "
            "PREFECT_API_URL"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UserError(f"{no_answer}: {_reason(error)}") from None
    except ValueError as error:  # of pydantic, for Prefect's settings or the address
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{no_answer}, or other PREFECT_ settings are invalid: {redact_credentials(str(error))}"
        ) from None
    return redact_credentials(url)


def answers(limit_s: float) -> bool:
    """Whether the server of PREFECT_API_URL answers within a number of seconds."""
    import httpx

    try:
        return _ask("/health", limit_s).is_success
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False


def is_open_to_all(url: str) -> bool:
    """Whether a server answers without a password."""
    import httpx

    try:
        return httpx.get(f"{redact_credentials(url)}/admin/version", timeout=_TIMEOUT_S).is_success
    except httpx.HTTPError:
        return False


def _ask(path: str, limit_s: float) -> httpx.Response:
    """One request, with the password, headers, certificates and proxies of Prefect's client, but
    without its retries. Raises TimeoutError."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()

    async def answer() -> httpx.Response:
        http = get_client()._client
        try:
            async with asyncio.timeout(limit_s):
                return await httpx.AsyncClient.send(
                    http, http.build_request("GET", path.lstrip("/"))
                )
        finally:
            await http.aclose()

    return asyncio.run(answer())


def _reason(error: Exception) -> str:
    """The operating system's reason of a failed connection, which the clients' messages hide."""
    reason, cause = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            # Negative numbers are those of the name resolution.
            reason = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return redact_credentials(reason)


def _refusal(answer: httpx.Response, shown: str) -> str | None:
    if answer.status_code not in (401, 403):
        return None
    remedy = (
        "PREFECT_API_AUTH_STRING contains another one"
        if os.environ.get("PREFECT_API_AUTH_STRING")
        else "set PREFECT_API_AUTH_STRING to its user:password"
    )
    return (
        f"the Prefect server of {shown} asks for a password (status {answer.status_code}): {remedy}"
    )
