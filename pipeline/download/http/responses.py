"""HTTP responses on bounded connections, with a certain end after which a connection may be reused.

What is uncertain about the end of a response (two lengths, a length beside chunks, bytes behind the
end) could make one response pass for two, so its connection is closed.
"""

from __future__ import annotations

import http
import http.client
import socket
from contextlib import suppress
from typing import cast

from pipeline.download.http.idle_connections import Connection
from pipeline.download.http.limits import BoundedStream, TooManyBytes, UrlDeadline

# A body that nobody wants is read to its end if that costs less than a new connection does.
_SMALL_BODY = 64 << 10
_DISCARD_S = 0.2
_HTTP_1_1 = 11


class StaleConnection(Exception):
    """The server had ended a reused connection, or had sent something else on it before."""


class Response(http.client.HTTPResponse):
    """A response without the interim ones (1xx) that may precede it."""

    def __init__(self, stream: BoundedStream) -> None:
        super().__init__(cast(socket.socket, stream), method="GET")
        self.stream = stream

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            # typeshed does not list this method.
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def flush(self) -> None:
        """Do nothing, as nothing is written. That of http.client fails if the reader of a response
        that nobody holds was finalized first, and Python 3.13 and later print such failures."""

    def discard_body(self) -> None:
        """Read what is left of the body, if it is small and comes at once."""
        if self.isclosed() or not self._has_certain_end() or (self.length or 0) > _SMALL_BODY:
            return
        self.stream.deadline, size = UrlDeadline(_DISCARD_S, _DISCARD_S), 0
        with suppress(OSError, ValueError, http.client.HTTPException, TooManyBytes):
            while size <= _SMALL_BODY and (piece := self.read(_SMALL_BODY)):
                size += len(piece)

    def leaves_reusable_connection(self) -> bool:
        """Whether the body was read to its end, which is certain, and nothing follows it."""
        is_whole = self.isclosed() and not self.length
        return is_whole and self._has_certain_end() and not self.stream.has_surplus

    def _has_certain_end(self) -> bool:
        """Whether the server keeps the connection open and says in one way where the body ends."""
        if self.version != _HTTP_1_1 or self.will_close or self.headers.defects:
            return False
        if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            return False
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            return not lengths and [coding.strip().lower() for coding in codings] == ["chunked"]
        return len(lengths) == 1 and lengths[0].strip().isdecimal() and lengths[0].isascii()


def request(connection: Connection, message: bytes, deadline: UrlDeadline) -> Response:
    """Send a request and read the headers of its response.

    Raises:
        StaleConnection: A new connection may serve the request.
        OSError, HTTPException, TooManyBytes: The request failed.
    """
    try:
        connection.socket.settimeout(deadline.step_timeout())
        connection.socket.sendall(message)
        response = Response(BoundedStream(connection.socket, deadline))
        response.begin()
    except (OSError, http.client.BadStatusLine) as error:
        if connection.is_reused and not isinstance(error, TimeoutError):
            raise StaleConnection from error
        raise
    if connection.is_reused and response.status == http.HTTPStatus.REQUEST_TIMEOUT:
        raise StaleConnection  # it waited in vain for a request that it has not seen
    return response
