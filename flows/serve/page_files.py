"""The web page of the service: its files, which it loads from the service alone."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from flows.serve.content_policy import files_policy

# Where the page's scripts and styles are. They are open to all, as the page is.
FILES_PATH = "/page/"
_FOLDER = Path(__file__).parent / "page"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}


def add_page(app: FastAPI) -> None:
    """Serve the page at `/`, and the files that it loads."""
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    policy = {"Content-Security-Policy": files_policy()}

    @app.get("/", include_in_schema=False)
    async def the_page() -> HTMLResponse:
        return HTMLResponse(page, headers=policy)

    for path in sorted(_FOLDER.iterdir()):
        if media_type := _MEDIA_TYPES.get(path.suffix):
            _add_file(app, path.name, path.read_text(encoding="utf-8"), media_type)


def _add_file(app: FastAPI, name: str, content: str, media_type: str) -> None:
    @app.get(FILES_PATH + name, include_in_schema=False)
    async def the_file() -> Response:
        return Response(content, media_type=media_type)
