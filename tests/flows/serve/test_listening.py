"""Addresses of listening sockets."""

from __future__ import annotations

import socket

import pytest

from flows.serve.listening import address_of, listen
from flows.terminal.errors import UserError


def test_a_free_port_is_chosen_and_named() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert port
        assert address_of(listening) == f"http://127.0.0.1:{port}"


def test_an_address_of_ipv6_is_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listening = listen("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6 loopback")
    with listening:
        assert address_of(listening).startswith("http://[::1]:")
