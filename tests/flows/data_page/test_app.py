"""The data page on loopback: a real server, a real client and a real browser."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from flows.data_page.app import data_application
from pipeline.config.run import RunConfig
from tests.support.browsed import CLOSING, ROWS, RTL, SCRIPT, finished_browsed, open_browser
from tests.support.browser import browser_page, needs_browser
from tests.support.live import ask, live_app


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return finished_browsed(tmp_path_factory.mktemp("look"))


@pytest.fixture(scope="module")
def port(config: RunConfig) -> Iterator[int]:
    with live_app(data_application(open_browser(config))) as port:
        yield port


def test_rows_are_found_and_shown(port: int) -> None:
    assert ask(port, "GET", "/summary").json["rows"] == len(ROWS)
    rows = ask(port, "GET", "/rows?text=boat&state=kept&page=0").json
    assert [row["caption"] for row in rows["rows"]] == ["a red boat"]
    assert ask(port, "GET", f"/rows?text={quote(SCRIPT)}").json["found"] == 1
    assert ask(port, "GET", "/rows?sort=size&descending=true").json["rows"][0]["height"] == 111
    assert ask(port, "GET", "/rows/0").json["captions"][1]["caption"] == "un bateau rouge"
    assert ask(port, "GET", "/duplicates?kind=same_file").json["found"] == 1
    image = ask(port, "GET", "/images/0")
    assert image.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(image.body)).size == (64, 64)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rows?page=-1", 422),
        ("/rows?page=99999999999999999999999", 422),
        ("/rows?score_from=nan", 422),
        ("/rows?side_from=many", 422),
        ("/rows?unknown=1", 422),
        ("/rows?state=%00", 422),
        ("/duplicates?kind=other", 422),
        ("/duplicates?page=-1", 422),
        ("/rows/none", 422),
        ("/rows/-1", 404),
        ("/rows/99999999999999999999", 404),
        ("/images/-1", 404),
        ("/images/99999999999999999999", 404),
        ("/images/..%2f..%2fetc%2fpasswd", 404),
        ("/images/../../etc/passwd", 404),
        ("/images/00000.tar", 422),
        ("/rows?page=1000", 200),
        ("/openapi.json", 404),
        ("/docs", 404),
    ],
)
def test_absurd_requests_are_answered(port: int, path: str, status: int) -> None:
    answer = ask(port, "GET", path)
    assert answer.status == status, answer.body
    assert b"Traceback" not in answer.body


def test_nothing_can_be_changed(port: int) -> None:
    for path in ("/", "/summary", "/rows", "/rows/0", "/images/0", "/duplicates"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert ask(port, method, path).status == 405


def test_a_page_of_a_stranger_gets_nothing(port: int) -> None:
    for path in ("/", "/summary", "/rows", "/rows/0", "/images/0", "/duplicates"):
        assert ask(port, "GET", path, headers={"Host": "elsewhere.example"}).status == 421
        answer = ask(port, "GET", path, headers={"Origin": "http://elsewhere.example"})
        assert answer.status == 200
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert not [name for name in headers if name.startswith("access-control")]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


@needs_browser
def test_a_browser_looks_through_the_images(port: int, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    screenshots = Path(os.environ.get("TLD_SCREENSHOTS", tmp_path))
    with browser_page(1280, 900) as (page, wrong):
        requests = list[str]()
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        tiles, dialog = page.locator("#grid .tile"), page.get_by_role("dialog")
        reasons = page.get_by_role("group", name="Rows and reasons")
        expect(page.get_by_role("heading", name="look")).to_be_visible()
        expect(page.get_by_text("11 of 17 rows kept")).to_be_visible()
        expect(tiles).to_have_count(len(ROWS))
        for caption in (SCRIPT, CLOSING, RTL):
            expect(page.locator(".words").filter(has_text=caption)).to_have_count(1)
        assert (
            tiles.first.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)")
            == 64
        )
        page.screenshot(path=screenshots / "data-test.png")

        page.keyboard.press("/")
        page.keyboard.type("BATEAU")
        expect(tiles).to_have_count(1)
        page.get_by_role("button", name="Clear filters").click()
        expect(tiles).to_have_count(len(ROWS))

        reasons.get_by_role("button", name="download: not an image").click()
        expect(tiles).to_have_count(1)
        expect(tiles.first).to_contain_text("no picture at all")
        page.reload()
        expect(tiles).to_have_count(1)  # the address remembers the filters
        reasons.get_by_role("button", name="Kept").click()
        expect(tiles).to_have_count(11)
        page.get_by_label("Short side from").fill("105")
        expect(tiles).to_have_count(7)
        page.get_by_label("Sort by").select_option("-size")
        expect(tiles.first).to_contain_text("picture number 11")
        page.get_by_role("button", name="Clear filters").click()

        expect(tiles).to_have_count(len(ROWS))
        tiles.first.focus()
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("un bateau rouge")
        expect(dialog).to_contain_text("sha256")
        for caption in ("a Blue house", SCRIPT, CLOSING):
            page.keyboard.press("ArrowRight")
            expect(dialog.locator("dd").filter(has_text=caption)).to_have_count(1)
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(tiles.nth(3)).to_be_focused()

        page.get_by_role("tab", name="Duplicates side by side (2)").click()
        expect(page.locator(".twin")).to_have_count(2)
        twin = page.locator(".twin").filter(has_text="The same file")
        expect(twin.locator(".tile").nth(0)).to_contain_text("a red boat")
        expect(twin.locator(".tile").nth(1)).to_contain_text("a copy of the boat")
        expect(page.locator(".twin").first).to_contain_text("of 64 bits")

        page.set_viewport_size({"width": 390, "height": 844})
        for view in ("Duplicates", "Rows"):
            page.get_by_role("tab", name=view).click()
            expect(tiles.first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        expect(tiles).to_have_count(len(ROWS))
        tiles.nth(2).click()
        expect(dialog.locator("dd").filter(has_text=SCRIPT)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.title() == "look · tld data", "no caption was run as a script"
        assert {url.split("/")[2] for url in requests if url.startswith("http")} == {
            f"127.0.0.1:{port}"
        }
        assert not wrong
