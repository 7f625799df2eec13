"""What is said to a server, and what its words mean: URLs, requests, opt-outs, wishes to wait. Opens no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urljoin, urlsplit

USER_AGENT_TOKEN = "tld"
_OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_NO_AGENTS = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}  # directives with a colon
_KEPT_IN_URLS = "%/:=&?~#+!$,;'@()*[]|."


class FetchFailed(Exception):
    """A URL that gave nothing. The message is a cause that can be counted: no address, no varying number."""

    def __init__(self, cause: str, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that can be asked for."""

    scheme: str
    host: str  # ascii
    port: int
    path: str  # with the query


def parse_url(url: str) -> Target:
    """Who is asked for what. Raises FetchFailed."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise FetchFailed("not http or https")
        host = parts.hostname or ""
        host = host if ":" in host else host.encode("idna").decode("ascii")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:
        raise FetchFailed("not a valid URL") from None
    if not re.fullmatch(r"[A-Za-z0-9_.:%-]+", host):
        raise FetchFailed("not a valid URL")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, quote(path, safe=_KEPT_IN_URLS))


def redirected(url: str, location: str) -> str:
    """Where a redirect leads, told in bytes that http.client took for Latin-1. Raises FetchFailed."""
    try:
        return urljoin(url, quote(location, safe=_KEPT_IN_URLS, encoding="latin-1"))
    except ValueError:
        raise FetchFailed("not a valid URL") from None


def request_message(target: Target, agent: str, through_proxy: bool) -> bytes:
    """A GET. Nothing in it can hold a line end: host and path are checked and quoted."""
    name = f"[{target.host}]" if ":" in target.host else target.host
    customary = target.port == {"http": 80, "https": 443}[target.scheme]
    place = name if customary else f"{name}:{target.port}"
    lines = (
        f"GET {f'{target.scheme}://{place}' if through_proxy else ''}{target.path} HTTP/1.1",
        *(f"Host: {place}", f"User-Agent: {agent}", "Accept: image/*,*/*;q=0.8"),
        *("Accept-Encoding: identity", "Connection: close", "", ""),
    )
    return "\r\n".join(lines).encode("ascii", "replace")


def opted_out(headers: Message) -> bool:
    """Whether headers keep us from training on the file: X-Robots-Tag for everybody or for `tld`, or the TDM
    Reservation Protocol (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/)."""
    if (headers.get("TDM-Reservation") or "").strip() == "1":
        return True
    for value in headers.get_all("X-Robots-Tag", []):
        addressed = "*"
        for part in str(value).lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _NO_AGENTS:  # an agent's name holds for what follows it
                addressed, part = name.strip(), rest
            if addressed in ("*", USER_AGENT_TOKEN) and part.strip() in _OPT_OUTS:
                return True
    return False


def retry_after_s(headers: Message) -> float | None:
    """Seconds until a server wants to be asked again; it tells them, or a date. None where it tells neither."""
    value = str(headers.get("Retry-After", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
