"""The Prefect server that PREFECT_API_URL names, asked before anything begins: one sentence says
what is wrong."""

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
    """The address of a server that answers, without its password. Raises UserError."""
    import httpx

    shown = f"PREFECT_API_URL={redact_credentials(url)}"
    nobody = f"no Prefect server answers at {shown}"
    if proxies := unusable_proxies():
        raise UserError(
            f"{proxies[0]} is no proxy that Prefect's client can use (HTTP only): unset it"
        )
    try:
        _ = urlsplit(url).port  # raises ValueError where it is none
        health = _ask("/health", _TIMEOUT_S)
        if health.is_error:
            raise UserError(
                _refusal(health, shown) or f"{nobody}: its /health says {health.status_code}"
            )
        if health.text.strip() != "true":
            raise UserError(
                f"{nobody}: what answers there is another service; the address ends in /api"
            )
        if refusal := _refusal(_ask("/admin/version", _TIMEOUT_S), shown):
            raise UserError(refusal)
    except TimeoutError:
        raise UserError(
            f"{nobody}: it did not answer within {_TIMEOUT_S:.0f} s. Restart it, or unset "
            "PREFECT_API_URL"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UserError(f"{nobody}: {_reason(error)}") from None
    except ValueError as error:  # pydantic's, of Prefect's settings, or of an address
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{nobody}, or other PREFECT_ settings are wrong: {redact_credentials(str(error))}"
        ) from None
    return redact_credentials(url)


def answers(limit_s: float) -> bool:
    """Whether the server that is given answers within so many seconds."""
    import httpx

    try:
        return _ask("/health", limit_s).is_success
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False


def is_open_to_all(url: str) -> bool:
    """Whether a server answers whoever asks, without a password."""
    import httpx

    try:
        return httpx.get(f"{redact_credentials(url)}/admin/version", timeout=_TIMEOUT_S).is_success
    except httpx.HTTPError:
        return False


def _ask(path: str, limit_s: float) -> httpx.Response:
    """As Prefect's client asks, with its password, headers, certificates and proxies, but once.
    Raises TimeoutError."""
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
    """What the system said of a connection, which the clients' own words hide."""
    said, below = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while below is not None:
        if isinstance(below, OSError) and below.errno and below.strerror:
            said = (
                os.strerror(below.errno) if below.errno > 0 else below.strerror
            )  # negative: a name server's
        below = below.__cause__ or below.__context__
    return redact_credentials(said)


def _refusal(answer: httpx.Response, shown: str) -> str | None:
    if answer.status_code not in (401, 403):
        return None
    given = os.environ.get("PREFECT_API_AUTH_STRING")
    what = (
        "PREFECT_API_AUTH_STRING holds another"
        if given
        else "set PREFECT_API_AUTH_STRING to its user:password"
    )
    return (
        f"the Prefect server of {shown} asks for a password (status {answer.status_code}): {what}"
    )
