"""Proxy variables of the environment: a bypass for local servers, and unusable proxies."""

from __future__ import annotations

import os

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_SCHEMES = ("http", "https", "all")


def bypass_proxies_on_loopback() -> None:
    """Add this machine to the hosts that every HTTP client of this process and its children
    connects to directly."""
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if bypassed.strip() == "*":  # alone, it means all hosts
        return
    hosts = [part for part in bypassed.split(",") if part.strip()]
    known = {part.strip() for part in hosts}
    value = ",".join([*hosts, *(host for host in _LOCAL_HOSTS if host not in known)])
    os.environ.update({"no_proxy": value, "NO_PROXY": value})


def unusable_proxies() -> list[str]:
    """The variables with a proxy that httpx cannot use, such as SOCKS; with one, it refuses every
    request."""
    import httpx

    unusable = []
    for name in (
        variant for scheme in _SCHEMES for variant in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    ):
        if url := os.environ.get(name):
            try:
                httpx.Client(
                    proxy=url if "://" in url else f"http://{url}", trust_env=False
                ).close()
            except (ImportError, ValueError, httpx.InvalidURL):
                unusable.append(name)
    return unusable
