"""The web application of the data page: routes that read, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import Field

from flows.serve.content_policy import content_policy
from flows.serve.guard import Access, Guard
from flows.serve.problems import problem
from pipeline.browse.browser import DataBrowser, PairKind
from pipeline.browse.queries import RowQuery

_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
_MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
# A web page elsewhere must not show these answers, and an image opened alone must run nothing.
_PRIVATE = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}
_LAST_NUMBER = 1 << 53  # exact in JavaScript

PageNumber = Annotated[int, Query(ge=0, le=_LAST_NUMBER >> 10)]


class RowPageQuery(RowQuery):
    """What to look for, and which page of it."""

    page: int = Field(0, ge=0, le=_LAST_NUMBER >> 10)


def data_application(browser: DataBrowser) -> FastAPI:
    """The page and its answers. Nothing that a request says changes anything."""
    app = FastAPI(title="tld data", docs_url=None, redoc_url=None, openapi_url=None)
    _add_answers(app, browser)
    paths = [str(path) for route in app.routes if (path := getattr(route, "path", None))]
    app.add_middleware(Guard, access=Access(), paths=paths, answered=lambda *_: None)
    return app


def _add_answers(app: FastAPI, browser: DataBrowser) -> None:
    private = [Depends(_keep_private)]

    @app.get("/")
    async def page() -> HTMLResponse:
        policy = content_policy(_PAGE, images="'self' data:")
        return HTMLResponse(_PAGE, headers={**_PRIVATE, "Content-Security-Policy": policy})

    # Functions that are not async run in threads, so that a long search delays no other answer.

    @app.get("/summary", dependencies=private)
    def summary() -> dict[str, Any]:
        return browser.summary()

    @app.get("/rows", dependencies=private)
    def rows(query: Annotated[RowPageQuery, Query()]) -> dict[str, Any]:
        return browser.page(RowQuery(**query.model_dump(exclude={"page"})), query.page)

    @app.get("/rows/{number}", dependencies=private)
    def row(number: int) -> Any:
        return browser.row(number) or problem(404, "there is no such row", _PRIVATE)

    @app.get("/images/{number}")
    def image(number: int) -> Response:
        stored = browser.image(number)
        if stored is None:
            return problem(404, "this row has no image", _PRIVATE)
        return Response(stored.content, media_type=_MEDIA_TYPES[stored.suffix], headers=_PRIVATE)

    @app.get("/duplicates", dependencies=private)
    def duplicates(kind: PairKind = "", page: PageNumber = 0) -> dict[str, Any]:
        return browser.pairs(kind, page)


def _keep_private(response: Response) -> None:
    response.headers.update(_PRIVATE)
