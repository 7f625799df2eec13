"""Proxies of the environment, which never stand between us and our own servers on this machine."""

from __future__ import annotations

import os

_OURS = ("127.0.0.1", "localhost", "::1")
_SCHEMES = ("http", "https", "all")


def bypass_proxies_on_loopback() -> None:
    """Name this machine among those that every HTTP client of this process and its children asks
    directly."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if given.strip() == "*":  # means all, if it stands alone
        return
    named = [part for part in given.split(",") if part.strip()]
    known = {part.strip() for part in named}
    told = ",".join([*named, *(host for host in _OURS if host not in known)])
    os.environ.update({"no_proxy": told, "NO_PROXY": told})


def unusable_proxies() -> list[str]:
    """The variables whose proxy httpx cannot use, like one with SOCKS: it would refuse to ask
    anyone at all."""
    import httpx

    found = []
    for name in (
        variant for scheme in _SCHEMES for variant in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    ):
        if url := os.environ.get(name):
            try:
                httpx.Client(
                    proxy=url if "://" in url else f"http://{url}", trust_env=False
                ).close()
            except (ImportError, ValueError, httpx.InvalidURL):
                found.append(name)
    return found
