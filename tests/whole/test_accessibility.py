"""The pages of the service, of `tld data` and of a report, by the rules of axe and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.data_page.app import data_application
from tests.flows.serve.test_server import Studio
from tests.support.accessibility import violations
from tests.support.browsed import finished_browsed, open_browser
from tests.support.browser import browser_page, needs_browser
from tests.support.finished import finish
from tests.support.live import live, live_app
from tests.support.offline_page import opened
from tests.support.small import small

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs_browser]

# As wide as a laptop and a phone, and so tall that the bar with the button covers nothing; pixels.
SIZES = [(1366, 1600), (390, 2000)]
TABS_BY_NAME = {
    "Text to image": "pictures",
    "Interpolate": "interpolations",
    "Edit": "edits",
    "Outpaint": "outpaintings",
}
TABS = tuple(TABS_BY_NAME)


@pytest.fixture
def site() -> Iterator[str]:
    studio = Studio(examples=["a red star", "a blue ring", "a green cross"])
    studio.go_on(1_000_000)
    with live(studio.service) as port:
        yield f"http://127.0.0.1:{port}/"


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("button", name="Generate").wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_the_page_of_the_service_breaks_no_rule(site: str, size: tuple[int, int]) -> None:
    with browser_page(*size) as (page, wrong):
        page.goto(site)
        page.get_by_text("7 parameters").wait_for()
        page.get_by_text("More settings").click()
        page.get_by_text("About this model").click()
        broken: list[str] = []

        def look(state: str) -> None:
            broken.extend(f"{state}: {line}" for line in violations(page))

        for name in TABS:
            page.get_by_role("tab", name=name).click()
            look(name)
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("Choose an image first.").wait_for()
        look("a mistake")
        page.get_by_role("tab", name=TABS[0]).click()
        generate(page)
        look("images")
        page.locator(".tile").first.click()
        look("a large image")
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_label("Mask").wait_for()
        look("an image to edit")
        assert not broken, "\n".join(broken)
        assert not wrong


# What has the focus: its name, whether it shows that, and whether something else covers it.
FOCUS = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return [at.id || at.textContent, getComputedStyle(at).outlineStyle, at.contains(top)];
}"""
CONTROLS = """() => [...document.querySelectorAll("button, input, textarea, select, summary, canvas")]
  .filter(each => each.checkVisibility() && !each.disabled && each.tabIndex >= 0)
  .map(each => each.id || each.textContent)"""


@pytest.mark.parametrize("size", [(1366, 768), (390, 844)])
def test_every_control_is_reached_by_tab_and_shows_it(site: str, size: tuple[int, int]) -> None:
    with browser_page(*size) as (page, _):
        page.goto(site)
        page.get_by_text("7 parameters").wait_for()
        generate(page)
        page.get_by_text("More settings").click()
        for name in TABS:
            page.get_by_role("tab", name=name).click()
            controls = page.evaluate(CONTROLS)
            visited = {}
            for _ in range(len(controls) + 2):
                focused, outline, is_on_top = page.evaluate(FOCUS)
                visited[focused] = (outline, is_on_top)
                page.keyboard.press("Tab")
            assert set(controls) <= set(visited), name
            shown = {each: how for each, how in visited.items() if each in controls}
            shown.pop(TABS_BY_NAME[name])  # the mouse was there
            assert {each: how for each, how in shown.items() if how != ("solid", True)} == {}, name


def test_images_are_made_looked_at_and_deleted_without_a_mouse(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(1366, 768) as (page, wrong):
        page.goto(site)
        expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        page.keyboard.press("Control+A")
        page.keyboard.type("a blue cross")
        page.keyboard.press("Control+Enter")
        expect(page.locator("article img")).to_have_count(4)
        for _ in range(40):
            if page.evaluate("document.activeElement.className") == "tile":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("a blue cross")).to_be_visible()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Delete")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(page.locator("article img")).to_have_count(3)
        assert page.evaluate("document.activeElement.className") == "tile", "the focus is back"
        assert not wrong


@pytest.mark.parametrize("size", SIZES)
def test_the_data_page_breaks_no_rule(tmp_path: Path, size: tuple[int, int]) -> None:
    browser = open_browser(finished_browsed(tmp_path))
    with live_app(data_application(browser)) as port, browser_page(*size) as (page, wrong):
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#grid .tile").first.wait_for()
        broken = violations(page)
        page.locator("#grid .tile").first.click()
        page.get_by_role("dialog").wait_for()
        broken += violations(page)
        assert not broken, "\n".join(broken)
        assert not wrong


def test_a_report_breaks_no_rule(tmp_path: Path) -> None:
    config = finish(small(tmp_path / "data", download__limit=20))
    report = next(Path(config.folder).rglob("report.html"))
    for width, _ in SIZES:
        with opened(report, width, tmp_path) as page:
            assert violations(page) == []
