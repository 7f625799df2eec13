"""Access control and request limits of the service, as ASGI middleware."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import Response, Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_catalog.text_files import TextFileError, read_text
from flows.serve.page_files import FILES_PATH
from flows.serve.problems import problem
from flows.serve.schemas import LARGEST_IMAGE, LARGEST_MASK
from flows.terminal.console import say
from flows.terminal.errors import UserError

log = logging.getLogger("tld.serve")
_OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json")
# Load balancers use an address as the host name, or none at all; these answers reveal nothing.
_PROBES = ("/healthz", "/readyz")
_SHORTEST_TOKEN = 16
_LARGEST_BODY = 16 * 1024  # a prompt of 1000 characters, each escaped, takes 12 kB
_LARGEST_WITH_IMAGES = {
    "/outpaintings": LARGEST_IMAGE + _LARGEST_BODY,
    "/edits": LARGEST_IMAGE + LARGEST_MASK + _LARGEST_BODY,
}
_BODY_DEADLINE_S = 10
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
# Only for the OpenAPI page: the guard checks the token before.
TOKEN = [Security(HTTPBearer(auto_error=False, description="Required if the service has tokens."))]
CLIENT_LEFT = 499  # nginx's status for a client that disconnected
INTERNAL_ERROR = "internal error; the service's log has the details under this id"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may send requests: clients with a token or, without tokens, clients that address the
    service by a name of this machine.

    The name is checked because a malicious web page may point its own name at loopback (DNS
    rebinding).
    """

    tokens: tuple[bytes, ...] = ()
    """SHA-256 of each token, so that all have the same length and none is stored."""
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})

    def knows(self, authorization: str) -> bool:
        """Whether this is `Bearer` and one of the tokens, compared in constant time."""
        scheme, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.tokens]
        return any(matches) and scheme.lower() == "bearer"


def read_access(host: str, token_file: Path | None) -> Access:
    """Access to a service that is bound to `host`.

    Raises UserError if the tokens cannot be read, or if another machine could connect without one.
    """
    if token_file:
        return Access(
            tuple(hashlib.sha256(token.encode()).digest() for token in _read_tokens(token_file))
        )
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise UserError(f"--host {host}: no such address ({error})") from None
    if not all(
        ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses
    ):
        raise UserError(
            f"--host {host} can be reached from other machines, so the service needs --token-file: "
            "a file with one token per line, which clients send as `Authorization: Bearer TOKEN`; "
            "create one with\n"
            "  (umask 077; openssl rand -hex 32 > tokens.txt)"
        )
    return Access(hosts=Access().hosts | {host.lower()})


def _read_tokens(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except TextFileError as error:
        raise UserError(f"--token-file: {error}") from None
    if path.stat().st_mode & 0o077:
        say(
            f"warning: other users of this machine can read --token-file {path}; "
            "protect it with `chmod 600`"
        )
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise UserError(f"--token-file {path} contains no token; write one per line")
    if short := [number for number, token in enumerate(tokens, 1) if len(token) < _SHORTEST_TOKEN]:
        raise UserError(
            f"--token-file {path}: token {short[0]} is shorter than {_SHORTEST_TOKEN} characters "
            "and could be guessed; create one with `openssl rand -hex 32`"
        )
    return tokens


class _Refused(Exception):
    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers

    def answer(self, path: str) -> Response:
        """The refusal as the answer of a path."""
        return problem(self.status, self.detail, self.headers, path=path)


class Guard:
    """ASGI middleware that checks each request before the application sees it.

    Clients without access are refused before their bodies are read, and large or slow bodies before
    they are parsed. An exception is logged under an id, and the client receives only the id.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        paths: Iterable[str],
        answered: Callable[[str, int, float], None],
    ) -> None:
        """`answered` is called with the path (of `paths`, or "other"), status and seconds of each
        request."""
        self.app, self.access, self.paths, self.answered = app, access, frozenset(paths), answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), CLIENT_LEFT

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            self._admit(scope)
            body = await _read_body(receive, _largest_body(scope))
            # The server omits the body of the answer to HEAD.
            app_scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self.app(app_scope, _replayed(body, receive), guarded_send)
        except _Refused as refused:
            await refused.answer(scope["path"])(scope, receive, guarded_send)
        except Exception:
            reference = log_failure(f"{scope['method']} {scope['path']}")
            if status == CLIENT_LEFT:  # nothing has been sent yet
                failure = problem(500, INTERNAL_ERROR, path=scope["path"], id=reference)
                await failure(scope, receive, guarded_send)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.answered(path, status, time.monotonic() - started)

    def _admit(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        # RFC 9112, 6.1: this may be request smuggling.
        if b"transfer-encoding" in headers and b"content-length" in headers:
            raise _Refused(
                400,
                "a request must not have both Content-Length and Transfer-Encoding",
                Connection="close",
            )
        is_strange = _host_name(headers.get(b"host", "")) not in self.access.hosts
        if is_strange and not self.access.tokens and scope["path"] not in _PROBES:
            raise _Refused(421, "this service does not answer to that host name")
        is_open = scope["path"] in _OPEN_PATHS or scope["path"].startswith(FILES_PATH)
        is_guarded = self.access.tokens and not is_open
        if is_guarded and not self.access.knows(headers.get(b"authorization", "")):
            detail = "a valid token is required: Authorization: Bearer TOKEN"
            raise _Refused(401, detail, **{"WWW-Authenticate": "Bearer"})
        if int(headers.get(b"content-length", 0)) > _largest_body(scope):
            raise _Refused(413, f"the body is larger than {_largest_body(scope)} bytes")


def log_failure(what: str) -> str:
    """Log the exception that is being handled; return the id of the log entry."""
    reference = uuid.uuid4().hex[:12]
    log.exception("%s failed, id %s", what, reference)
    return reference


def _host_name(host: str) -> str:
    """`Host` without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _largest_body(scope: Scope) -> int:
    return _LARGEST_WITH_IMAGES.get(scope["path"].removesuffix("/stream"), _LARGEST_BODY)


async def _read_body(receive: Receive, most: int) -> bytes:
    """The whole body, which must have at most `most` bytes and arrive in time."""
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(_BODY_DEADLINE_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise _Refused(413, f"the body is larger than {most} bytes")
    except TimeoutError:
        raise _Refused(
            408, f"the body did not arrive within {_BODY_DEADLINE_S} s", Connection="close"
        ) from None
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then the messages of the server: that the client disconnected."""
    is_replayed = False

    async def replay() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
