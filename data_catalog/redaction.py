"""Redaction of what others must not see: credentials in URLs, and paths of this machine."""

from __future__ import annotations

import re
from pathlib import Path

_URL = re.compile(
    r"(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://[^\s'\"<>]*[^\s'\"<>:,.;)\]]", re.IGNORECASE
)
_CHAIN = re.compile(r"::(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_HIDDEN = "***"
_REPOSITORIES = {"github", "gitlab", "git"}  # github://owner:repository@branch/path
_CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}  # abfs://container@account/path


def redacted(url: str) -> str:
    """A URL without its user and password and without the values of its query.

    In a chain of URLs (zip://a::https://…) each URL is redacted. A file path stays unchanged.
    """
    return "::".join(map(_link, _CHAIN.split(url)))


def redact_credentials(text: str) -> str:
    """A text with all its URLs redacted, because clients repeat URLs in their error messages."""
    return _URL.sub(lambda match: redacted(match[0]), text)


def holds_secret(url: str) -> bool:
    """Whether a URL has parts that must not be shown to others."""
    return redacted(url) != url


def _link(url: str) -> str:
    """Redact one URL of a chain."""
    if "://" not in url:
        return url
    place, question, query = url.partition("?")
    shown = _without_token(_without_user(place))
    return f"{shown}?{_without_values(query)}" if question else shown


def _without_user(place: str) -> str:
    scheme, separator, rest = place.partition("://")
    if not separator or "@" not in rest or scheme.lower() in _REPOSITORIES:
        return place
    authority, slash, path = rest.partition("/")
    if "@" not in authority:  # the @ belongs to the path, or to a password that contains a slash
        host, _, port = authority.rpartition(":")
        if not host or port.isdigit() or authority.startswith("["):
            return place
        authority, slash, path = _after_user(rest).partition("/")
    elif scheme.lower() not in _CONTAINERS or ":" in authority:
        authority = _after_user(authority)
    return f"{scheme}://{authority}{slash}{path}"


def _after_user(text: str) -> str:
    return text.rpartition("@")[2]


def _without_token(place: str) -> str:
    """Hide a fragment that contains a value. Other fragments only name a place in a page."""
    before, sign, fragment = place.partition("#")
    return f"{before}#{_HIDDEN}" if sign and "=" in fragment else place


def _without_values(query: str) -> str:
    pairs = (pair.partition("=") for pair in re.split("[&;]", query.partition("#")[0]))
    return "&".join(
        f"{name}={_HIDDEN}" if equals and value else _HIDDEN for name, equals, value in pairs
    )


def public_name(name: str) -> str:
    """A name for publication: a name on a hub is unchanged, a path or URL is cut to its last part,
    because the rest is private."""
    is_elsewhere = "://" in name or Path(name).expanduser().exists() or name.count("/") > 1
    return name.partition("?")[0].rstrip("/").rpartition("/")[2] if is_elsewhere else name
