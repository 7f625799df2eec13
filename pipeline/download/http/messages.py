"""HTTP requests and response headers: URLs, redirects, opt-outs, content codings, Retry-After."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urljoin, urlsplit

USER_AGENT_TOKEN = "tld"
_OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_COLON_DIRECTIVES = {
    "unavailable_after",
    "max-snippet",
    "max-image-preview",
    "max-video-preview",
}  # directives with a colon
_CODINGS = {  # registered with IANA, except identity
    *(
        "aes128gcm",
        "br",
        "compress",
        "dcb",
        "dcz",
        "deflate",
        "exi",
        "gzip",
        "pack200-gzip",
        "zstd",
    ),
    *("x-compress", "x-gzip"),
}
# Ports at which a GET may be mistaken for another protocol, from
# https://fetch.spec.whatwg.org/#port-blocking
_BLOCKED_PORTS = {
    *(
        0,
        1,
        7,
        9,
        11,
        13,
        15,
        17,
        19,
        20,
        21,
        22,
        23,
        25,
        37,
        42,
        43,
        53,
        69,
        77,
        79,
        87,
        95,
        101,
        102,
        103,
        104,
    ),
    *(
        109,
        110,
        111,
        113,
        115,
        117,
        119,
        123,
        135,
        137,
        139,
        143,
        161,
        179,
        389,
        427,
        465,
        512,
        513,
        514,
        515,
    ),
    *(
        526,
        530,
        531,
        532,
        540,
        548,
        554,
        556,
        563,
        587,
        601,
        636,
        989,
        990,
        993,
        995,
        1719,
        1720,
        1723,
        2049,
        3659,
    ),
    *(4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
}
_PADDING = "".join(
    map(chr, range(0x21))
)  # white space and control characters, as browsers trim them
_SAFE_IN_URLS = "%/:=&?~#+!$,;'@()*[]|."


class FetchFailed(Exception):
    """A URL could not be fetched. The message is a cause that can be counted: it contains no
    address and no varying number."""

    def __init__(self, cause: str, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that can be requested."""

    scheme: str
    host: str  # ASCII
    port: int
    path: str  # with the query


def parse_url(url: str) -> Target:
    """Check a URL and split it into its parts. Raises FetchFailed."""
    try:
        parts = urlsplit(url.strip(_PADDING))
        if parts.scheme not in ("http", "https"):
            raise FetchFailed("not http or https")
        host = parts.hostname or ""
        host = host if ":" in host else host.encode("idna").decode("ascii")
        port = {"http": 80, "https": 443}[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        raise FetchFailed("not a valid URL") from None
    if not re.fullmatch(r"[A-Za-z0-9_.:%-]+", host):
        raise FetchFailed("not a valid URL")
    if port in _BLOCKED_PORTS:
        raise FetchFailed("port of another protocol")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, quote(path, safe=_SAFE_IN_URLS))


def redirected(url: str, location: str) -> str:
    """The URL of a redirect, whose bytes http.client decoded as Latin-1. Raises FetchFailed."""
    try:
        return urljoin(url, quote(location, safe=_SAFE_IN_URLS, encoding="latin-1"))
    except ValueError:
        raise FetchFailed("not a valid URL") from None


def request_message(target: Target, agent: str, *, through_proxy: bool) -> bytes:
    """A GET request. No URL can put a line break into it: host and path are checked and quoted."""
    name = f"[{target.host}]" if ":" in target.host else target.host
    default_port = target.port == {"http": 80, "https": 443}[target.scheme]
    authority = name if default_port else f"{name}:{target.port}"
    lines = (
        f"GET {f'{target.scheme}://{authority}' if through_proxy else ''}{target.path} HTTP/1.1",
        *(f"Host: {authority}", f"User-Agent: {agent}", "Accept: image/*,*/*;q=0.8"),
        *("Accept-Encoding: identity", "", ""),
    )
    return "\r\n".join(lines).encode("ascii", "replace")


def opted_out(headers: Message) -> bool:
    """Whether the headers forbid training on the file: X-Robots-Tag for everybody or for `tld`, or
    the TDM Reservation Protocol
    (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/)."""
    if (headers.get("TDM-Reservation") or "").strip() == "1":
        return True
    for value in headers.get_all("X-Robots-Tag", []):
        agent = "*"
        for part in str(value).lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _COLON_DIRECTIVES:
                # The name of an agent applies to the directives after it.
                agent, part = name.strip(), rest
            if agent in ("*", USER_AGENT_TOKEN) and part.strip() in _OPT_OUTS:
                return True
    return False


def is_compressed(headers: Message) -> bool:
    """Whether a body has a content coding. Other names ('utf-8', 'none', or 'aws-chunked' from
    object stores) come with plain bytes."""
    codings = ",".join(map(str, headers.get_all("Content-Encoding", [])))
    return not _CODINGS.isdisjoint(re.findall(r"[a-z0-9-]+", codings.lower()))


def retry_after_s(headers: Message) -> float | None:
    """Seconds to wait before the next request, from a Retry-After header in seconds or with a date.
    None if there is neither."""
    value = str(headers.get("Retry-After", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
