"""Allowed IP addresses, and a DNS cache with timeouts."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pipeline.compute.resource_limits import Shortage, check_descriptors, own_shortage_raised

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Not public, although some versions of Python call them global: protocol assignments, the former
# 6to4 relays and site-local addresses, a network's own NAT64, segment routing, documentation, and
# the host service of Azure, which has a public address.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *(
            "192.0.0.0/24",
            "192.88.99.0/24",
            "168.63.129.16/32",
            "fec0::/10",
            "64:ff9b:1::/48",
            "2001::/23",
        ),
        *("2001:db8::/32", "3fff::/20", "5f00::/16"),
    )
)
_EMBEDDING_AT_THE_END = (
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("::/96"),
)  # NAT64; IPv4-compatible
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the first half of the last 64 bits of such an address
_CACHE_S = 60.0
_MAX_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket address to connect to."""

    family: socket.AddressFamily
    socket_address: tuple[Any, ...]

    @property
    def address(self) -> str:
        return str(self.socket_address[0])


def is_allowed(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an IP address is public or in an allowed network. An IPv6 address that embeds an IPv4
    address (mapped, compatible, 6to4, Teredo, NAT64, ISATAP) is judged by that one."""
    outer = ipaddress.ip_address(address)
    addresses = [_innermost(outer)]
    if isinstance(outer, ipaddress.IPv6Address) and int(outer) >> 32 & 0xFFFF_FFFF in _ISATAP:
        addresses.append(ipaddress.IPv4Address(int(outer) & 0xFFFF_FFFF))
    return all(_is_public(one) or any(one in network for network in allowed) for one in addresses)


def shared_by(address: str) -> str:
    """The key under which addresses count as one host: an IPv4 address itself; for IPv6 the /64
    network, which is what one customer gets."""
    inner = _innermost(ipaddress.ip_address(address))
    if isinstance(inner, ipaddress.IPv4Address):
        return str(inner)
    return str(ipaddress.IPv6Network((int(inner) >> 64 << 64, 64)))


def _is_public(address: _Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return (
        address.is_global and not special and not any(address in network for network in _NOT_PUBLIC)
    )


def _innermost(address: _Address) -> _Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if embedded := address.ipv4_mapped or address.sixtofour:
        return embedded
    if address.teredo:
        return address.teredo[1]
    inside = any(address in network for network in _EMBEDDING_AT_THE_END)
    if inside and int(address) > 1:  # :: and ::1 embed no address
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class DnsCache:
    """Looks up each name once a minute, in a thread, because the system's call has no timeout."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], tuple[float, Future[list[Endpoint]]]] = {}
        self._lock = threading.Lock()

    def look_up(self, host: str, port: int, timeout_s: float) -> list[Endpoint]:
        """Addresses of a host.

        Raises:
            socket.gaierror: The name does not resolve, or the name server does not answer.
            TimeoutError: No answer came within `timeout_s`.
            Shortage: This machine ran out of something.
        """
        now = time.monotonic()
        with self._lock:
            started_at, future = self._lookups.get((host, port), (-_CACHE_S, None))
            if future is None or now - started_at >= _CACHE_S:
                if len(self._lookups) >= _MAX_NAMES:
                    self._lookups.clear()
                future = Future()
                with own_shortage_raised():
                    threading.Thread(
                        target=_look_up, args=(host, port, future), daemon=True
                    ).start()
                self._lookups[host, port] = (now, future)
        try:
            return future.result(timeout_s)
        except socket.gaierror as error:
            raise socket.gaierror(
                *error.args
            ) from None  # a new one, because several threads may raise it
        except Shortage as shortage:
            with self._lock:
                self._lookups.pop((host, port), None)
            raise Shortage(str(shortage)) from None


def _look_up(host: str, port: int, future: Future[list[Endpoint]]) -> None:
    try:
        with own_shortage_raised():
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except socket.gaierror:
                check_descriptors()  # without descriptors the C library may report any error
                raise
        future.set_result([Endpoint(family, address) for family, _, _, _, address in answers])
    except (socket.gaierror, Shortage) as error:
        future.set_exception(error)
    except Exception:  # the name cannot be encoded
        future.set_exception(socket.gaierror(socket.EAI_NONAME, "not a name"))
