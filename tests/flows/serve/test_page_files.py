"""The page: its files over HTTP, and what people do with it in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from flows.serve.page_files import FILES_PATH
from tests.flows.serve.test_server import Studio, png
from tests.support.browser import browser_page, needs_browser
from tests.support.live import ask, live

if TYPE_CHECKING:
    from playwright.sync_api import Page

LAPTOP, PHONE = (1366, 768), (390, 844)  # pixels
TABS = ("Text to image", "Interpolate", "Edit", "Outpaint")
EXAMPLES = ["a red star", "a blue ring on a very wide green background " * 4, "a cross"]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    studio = Studio(examples=EXAMPLES)
    studio.go_on(1_000_000)
    with live(studio.service) as port:
        yield f"http://127.0.0.1:{port}/"


def port_of(site: str) -> int:
    return int(site.rstrip("/").rpartition(":")[2])


def test_the_page_and_all_that_it_loads_come_from_the_service(site: str) -> None:
    page = ask(port_of(site), "GET", "/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    waiting, loaded = ["/page/page.js", "/page/page.css"], set()
    assert all(path.removeprefix("/") in page.body.decode() for path in waiting)
    assert not re.search(rb"<script>|<style>| style=| on[a-z]+=|https?://", page.body)
    while waiting:
        loaded.add(path := waiting.pop())
        file = ask(port_of(site), "GET", path)
        assert file.status == 200, path
        kind = "text/javascript" if path.endswith(".js") else "text/css"
        assert file.headers["content-type"].startswith(kind)
        assert file.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?://|innerHTML|eval\(", file.body), path
        imports = re.findall(r'from "(.+?)"', file.body.decode())
        waiting += {urljoin(path, name) for name in imports} - loaded
    assert len(loaded) >= 6
    for path in (FILES_PATH, f"{FILES_PATH}page.html", f"{FILES_PATH}../app.py", "/page"):
        assert ask(port_of(site), "GET", path).status == 404


def generate(page: Page) -> None:
    """Press the button and wait until the request is answered."""
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("button", name="Generate").wait_for()


@needs_browser
def test_everything_is_in_reach_of_a_laptop_a_phone_and_the_keyboard(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(*LAPTOP) as (page, wrong):
        page.goto(site)
        expect(page.get_by_role("heading", name="test")).to_be_visible()
        page.get_by_role("tab", name=TABS[0]).focus()
        for number, key in enumerate(["ArrowRight"] * 4 + ["ArrowLeft", "Home", "End"]):
            name = TABS[[0, 1, 2, 3, 0, 3, 0, 3][number]]
            tab = page.get_by_role("tab", name=name, selected=True)
            expect(tab).to_be_focused()
            expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
            bottom = page.get_by_role("button", name="Generate").evaluate(
                "button => button.getBoundingClientRect().bottom"
            )
            assert bottom <= LAPTOP[1], f"Generate is out of reach in {name}"
            page.keyboard.press(key)
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        for name in TABS:
            page.get_by_role("tab", name=name).click()
            expect(page.get_by_role("button", name="Generate")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert not wrong


@needs_browser
def test_mistakes_are_sentences_beside_the_button(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(*LAPTOP) as (page, wrong):
        page.goto(site)
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        alert = page.get_by_role("alert")
        page.get_by_label("Prompt", exact=True).fill("  ")
        generate(page)
        expect(alert).to_have_text("Write a prompt.")
        page.get_by_role("button", name="a red star").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red star")
        expect(page.get_by_text("3 of 8 tokens")).to_be_visible()
        page.get_by_label("Prompt", exact=True).fill("one two three four five six seven eight nine")
        expect(page.get_by_role("status")).to_have_text(
            "9 tokens: the text encoder reads the first 8, and the rest has no effect."
        )
        page.get_by_text("More settings").click()
        page.get_by_label("Negative prompt").fill("a ring")
        page.get_by_label("Guidance").fill("1")
        generate(page)
        expect(alert).to_have_text(
            "Negative prompt: does nothing at guidance 1 (no guidance); raise the guidance."
        )
        page.get_by_role("tab", name="Interpolate").click()
        expect(alert).to_have_count(0)
        generate(page)
        expect(alert).to_contain_text("what the last frame shows")
        page.get_by_role("tab", name="Outpaint").click()
        generate(page)
        expect(alert).to_have_text("Choose an image first.")
        file = page.get_by_label("Image file")
        file.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no image"})
        expect(alert).to_have_text("This browser cannot read a.txt as an image.")
        expect(page.locator("article")).to_have_count(0)
        assert [message for message in wrong if "422" not in message] == []


@needs_browser
def test_the_gallery_outlives_a_reload_and_links_reproduce_its_images(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(*LAPTOP) as (page, wrong):
        page.goto(site)
        page.get_by_text("More settings").click()
        page.get_by_label("Width").fill("16")
        page.get_by_label("A new seed each time").uncheck()
        page.get_by_label("Seed", exact=True).fill("7")
        page.get_by_label("Prompt", exact=True).fill("word " * 190)
        generate(page)
        expect(page.locator("article img")).to_have_count(4)
        heading = page.get_by_role("heading", name="word").bounding_box()
        assert heading
        assert heading["height"] < 60, "a long prompt takes two lines"
        page.get_by_role("button", name="Surprise me").click()
        page.get_by_label("Images", exact=True).fill("1")
        generate(page)

        page.reload()
        expect(page.locator("article img")).to_have_count(5)
        page.locator(".tile").nth(1).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("seed 7")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(dialog.get_by_text("seed 8")).to_be_visible()
        link = dialog.get_by_role("link", name="link").get_attribute("href")
        assert link
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(dialog.get_by_role("button", name="Previous image")).to_be_disabled()
        page.keyboard.press("Delete")
        expect(page.locator("article")).to_have_count(1)
        expect(dialog.get_by_text("seed 7")).to_be_visible()
        dialog.get_by_role("button", name="Delete").click()
        expect(dialog.get_by_text("seed 8")).to_be_visible()
        dialog.get_by_role("button", name="Close").click()
        page.reload()
        expect(page.locator("article img")).to_have_count(3)

        page.goto("about:blank")
        page.goto(link)
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(("word " * 190).strip())
        expect(page.get_by_label("Seed", exact=True)).to_have_value("8")
        expect(page.get_by_label("Images", exact=True)).to_have_value("1")
        generate(page)
        expect(page.locator("article").first.get_by_text("16 × 8, seed 8")).to_be_visible()
        page.once("dialog", lambda question: question.accept())
        page.get_by_role("button", name="Delete all").click()
        expect(page.locator("article")).to_have_count(0)
        page.reload()
        expect(page.get_by_text("7 parameters")).to_be_visible()
        expect(page.locator("article")).to_have_count(0)
        assert not wrong


@needs_browser
def test_an_image_of_the_gallery_is_edited_where_the_brush_painted(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(*LAPTOP) as (page, wrong):
        page.goto(site)
        page.get_by_label("Images", exact=True).fill("1")
        generate(page)
        page.locator(".tile").click()
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.get_by_text("Strength: 0.7")).to_be_visible()
        box = page.get_by_label("Mask").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        expect(page.get_by_text("Strength: 1")).to_be_visible()
        with page.expect_request("**/edits/stream?previews=true") as sent:
            generate(page)
        body = json.loads(sent.value.post_data or "")
        assert {"picture", "mask", "strength", "count"} <= set(body)
        expect(page.get_by_text("strength 1 with a mask")).to_be_visible()
        page.get_by_role("button", name="Clear the mask").click()
        with page.expect_request("**/edits/stream?previews=true") as sent:
            generate(page)
        body = json.loads(sent.value.post_data or "")
        assert ("mask" in body, body["strength"]) == (False, 0.7)
        assert not wrong


@needs_browser
@pytest.mark.usefixtures("fast_previews")
def test_what_is_stopped_is_kept_as_it_was_and_can_be_finished() -> None:
    from playwright.sync_api import expect

    studio = Studio()
    with live(studio.service) as port, browser_page(*LAPTOP) as (page, wrong):
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        page.get_by_label("Images", exact=True).fill("2")
        page.get_by_role("button", name="Generate").click()
        studio.go_on(2)
        expect(page.locator(".tile.unfinished img")).to_have_count(2)
        page.get_by_role("button", name="Stop").click()
        note = "Stopped at step 1 of 3; no image was finished, 2 images kept as a preview."
        expect(page.get_by_text(note)).to_be_visible()
        studio.go_on()

        page.reload()
        expect(page.get_by_text(note)).to_be_visible()
        expect(page.locator(".tile.unfinished img")).to_have_count(2)
        page.locator(".tile").first.click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("Unfinished, at step 1 of 3: a star")).to_be_visible()
        page.keyboard.press("ArrowRight")
        seed = re.search(r"seed (\d+)", dialog.locator("#large-words").inner_text())
        assert seed
        link = dialog.get_by_role("link", name="link").get_attribute("href")
        assert f"seed={seed[1]}" in (link or "")
        download = dialog.get_by_role("link", name="Download").get_attribute("download")
        assert download == f"a-star-{seed[1]}-unfinished.png"
        with page.expect_request("**/pictures/stream?previews=true") as sent:
            dialog.get_by_role("button", name="Finish it").click()
        body = json.loads(sent.value.post_data or "")
        assert (body["prompt"], body["seed"], body["count"]) == ("a star", int(seed[1]), 1)
        finished = page.locator("article").first
        expect(finished.locator(".tile:not(.unfinished) img")).to_have_count(1)
        finished.locator(".tile").click()
        expect(dialog.get_by_role("button", name="Finish it")).to_be_hidden()
        assert not wrong


HAND_OVER = """([kind, png, text]) => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], "mine.png", { type: "image/png" }));
  if (text) data.setData("text/plain", text);
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste" ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data });
  return (text ? document.querySelector("#prompt") : document.body).dispatchEvent(event);
}"""


@needs_browser
def test_an_image_is_taken_by_drop_and_by_paste(site: str) -> None:
    from playwright.sync_api import expect

    with browser_page(*LAPTOP) as (page, wrong):
        page.goto(site)
        expect(page.get_by_text("7 parameters")).to_be_visible()
        for name, tab, kind in (
            (TABS[0], TABS[2], "drop"),
            (TABS[3], TABS[3], "paste"),
            (TABS[1], TABS[2], "paste"),
        ):
            page.get_by_role("tab", name=name).click()
            is_left_to_the_browser = page.evaluate(HAND_OVER, [kind, png(12, 8), ""])
            assert not is_left_to_the_browser
            expect(page.get_by_role("tab", name=tab, selected=True)).to_be_visible()
            expect(page.get_by_role("img", name="Input: mine.png")).to_be_visible()
        generate(page)
        expect(page.locator("article img")).to_have_count(4)
        page.get_by_role("tab", name=TABS[0]).click()
        assert page.evaluate(HAND_OVER, ["paste", png(12, 8), "a cell of a table"]), "it is text"
        expect(page.get_by_role("tab", name=TABS[0], selected=True)).to_be_visible()
        assert not wrong


@needs_browser
@pytest.mark.usefixtures("fast_previews")
def test_who_finishes_an_image_with_another_model_is_told() -> None:
    from playwright.sync_api import Route, expect

    studio, served = Studio(), {"fingerprint": "a"}

    def answer(route: Route) -> None:
        card = route.fetch().json()
        card["model"] |= served
        route.fulfill(json=card)

    with live(studio.service) as port, browser_page(*LAPTOP) as (page, wrong):
        page.route("**/card", answer)
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        page.get_by_role("button", name="Generate").click()
        studio.go_on(2)
        expect(page.locator(".tile.unfinished img")).to_have_count(4)
        page.get_by_role("button", name="Stop").click()
        studio.go_on()
        told = page.get_by_text("This was made with another model, so the image will differ.")
        for name, count in (("a", 0), ("b", 1)):
            served["fingerprint"] = name
            page.reload()
            page.locator("article").last.locator(".tile").first.click()
            page.get_by_role("button", name="Finish it").click()
            expect(
                page.locator("article").first.locator(".tile:not(.unfinished) img")
            ).to_have_count(1)
            expect(told).to_have_count(count)
        assert not wrong


@needs_browser
def test_a_double_click_starts_once_and_stops_nothing() -> None:
    from playwright.sync_api import expect

    studio = Studio()
    with live(studio.service) as port, browser_page(*LAPTOP) as (page, wrong):
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        page.get_by_role("button", name="Generate").dblclick()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        studio.go_on()
        expect(page.locator("article img")).to_have_count(4)
        assert not wrong


# As events, because a button that moves while images appear is missed by a mouse.
_TWO_CLICKS = """async button => {
  for (const detail of [1, 2]) {
    button.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, detail }));
    await new Promise(resolve => setTimeout(resolve, 300));
  }
}"""


@needs_browser
def test_a_double_click_stops_once_and_starts_nothing() -> None:
    from playwright.sync_api import expect

    studio = Studio()
    with live(studio.service) as port, browser_page(*LAPTOP) as (page, wrong):
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
        page.get_by_role("button", name="Generate").click()
        page.get_by_role("button", name="Stop").evaluate(_TWO_CLICKS)
        expect(page.get_by_role("button", name="Generate")).to_be_visible()
        studio.go_on()
        expect(page.locator("article")).to_have_count(1)
        assert not wrong
