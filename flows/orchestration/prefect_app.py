"""The process of our Prefect server: Prefect's application behind a guard, on loopback.

It lives as long as its parent process. Prefect asks clients for the secret in its environment. The
guard refuses what a web page in a browser on this machine could send: requests from another origin,
and requests to another host name (DNS rebinding).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from importlib import import_module

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

USER = "tld"
_LOGIN_PATH = "/login-with-link"
# Prefect's page sends the password that it finds here. Browsers send a fragment to no server.
_LOGIN_PAGE = f"""<!doctype html><title>tld</title><script>
localStorage.setItem("prefect-password", btoa("{USER}:" + location.hash.slice(1)));
location.replace("/");
</script>"""


def login_link(port: int, auth_string: str) -> str:
    """The address that opens Prefect's page with the secret."""
    return f"http://127.0.0.1:{port}{_LOGIN_PATH}#{auth_string.removeprefix(f'{USER}:')}"


def origins(port: int) -> list[str]:
    """The origins of our own pages."""
    return [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]


class PrefectGuard:
    """ASGI middleware that accepts only requests to our own host names, from our own pages or from
    no page."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._origins = origins(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            else:
                await PlainTextResponse(refusal, 403)(scope, receive, send)
        elif scope["path"] == _LOGIN_PATH:
            await HTMLResponse(_LOGIN_PAGE, headers={"Cache-Control": "no-store"})(
                scope, receive, _unframed(send)
            )
        else:
            await self._app(scope, receive, _unframed(send))

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; None if it is not."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if not hosts or any(f"http://{host.lower()}" not in self._origins for host in hosts):
            return "this server does not answer requests for that host name"
        if senders := headers.getlist("origin"):
            return (
                None
                if all(origin in self._origins for origin in senders)
                else "requests from pages of another origin are refused"
            )
        is_link = headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith(
            "/api"
        )
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
            return "requests from pages of another origin are refused"
        return None


def _unframed(send: Send) -> Send:
    """Responses that other pages cannot show in a frame (clickjacking)."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Frame-Options"] = "DENY"
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return wrapped


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Serve the application `module:factory` at a port until the parent process ends.

    A parent that holds the listening socket passes its descriptor too. Clients that connect while
    one server replaces another then wait, and are not refused.
    """
    application, parent, port, descriptor = sys.argv[1], *map(int, sys.argv[2:5])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # Prefect would read the user's own settings from files in the current folder.
    os.chdir(os.environ["PREFECT_HOME"])
    import uvicorn

    module, _, factory = application.partition(":")
    app = PrefectGuard(getattr(import_module(module), factory)(), port)
    # Everything is set here, because uvicorn would read the number of workers and trusted proxies
    # from the environment.
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
        workers=1,
        proxy_headers=False,
    )
    uvicorn.Server(config).run(
        sockets=[socket.socket(fileno=descriptor)] if descriptor >= 0 else None
    )


if __name__ == "__main__":
    main()
