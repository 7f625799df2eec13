"""A self-contained page in a real headless browser that has no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Request

DESK, PHONE = 1280, 390  # pixels


@contextmanager
def opened(path: Path, width: int, screenshots: Path) -> Iterator[Page]:
    """The page, which shows all its pictures, asks for nothing, complains of nothing and fits the
    width."""
    complaints: list[str] = []

    def complained(message: ConsoleMessage) -> None:
        complaints.append(message.text)

    def failed(request: Request) -> None:
        complaints.append(request.url)

    with chromium() as browser:
        page = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True
        ).new_page()
        page.on("console", complained)
        page.on("requestfailed", failed)
        page.goto(path.as_uri())
        yield page
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            "something sticks out"
        )
        assert not complaints
        folder = Path(os.environ.get("TLD_SCREENSHOTS", screenshots))
        page.screenshot(path=folder / f"{path.stem}-{width}.png", full_page=True)
