"""The causes of failed downloads: names that can be counted, and which of them are transient."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl

from pipeline.download.http.limits import TooManyBytes

NO_TIME_LEFT = "the shard's time was over before it was decoded"
_TRANSIENT = {
    NO_TIME_LEFT,
    *(
        "timed out",
        "connection refused",
        "connection reset",
        "host is unreachable",
        "connection failed",
    ),
    *("host does not answer", "name server does not answer", "HTTP 408", "HTTP 429"),
}


def is_transient(cause: str) -> bool:
    """Whether a URL that failed for this cause may succeed later."""
    return cause in _TRANSIENT or re.fullmatch(r"HTTP 5\d\d", cause) is not None


def cause_of(error: Exception) -> str:
    """The cause of failure that an exception of a connection stands for."""
    match error:
        case TimeoutError():
            return "timed out"
        case TooManyBytes():
            return "body too large"
        case socket.gaierror():
            return (
                "name server does not answer"
                if error.errno == socket.EAI_AGAIN
                else "name does not resolve"
            )
        case ConnectionRefusedError():
            return "connection refused"
        case (
            ConnectionError()
            | http.client.IncompleteRead()
            | ssl.SSLEOFError()
            | ssl.SSLZeroReturnError()
        ):
            return "connection reset"
        case ssl.SSLError() | ssl.CertificateError():
            return "TLS error"
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL):
            return "host is unreachable"
        case OSError():
            return "connection failed"
    return "not valid HTTP"
