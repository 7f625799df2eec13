"""`tld serve` as a user runs it: a finished run, another process, a real browser, a signal."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_catalog.shapes.dataset import parse_caption
from flows.orchestration.prefect_server import free_port
from flows.serve.listening import listen
from flows.terminal.errors import UserError
from pipeline.generate.generator import ImageGenerator, load_generator
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.flows.cli.test_sample import save_model
from tests.support.browser import browser_page, needs_browser
from tests.support.command import start, tld
from tests.support.finished import finish
from tests.support.live import ask
from tests.support.small import TINY, small
from tld_model.config import SamplingSettings
from tld_model.encoders.names import SHIPPED_ENCODERS
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec

pytestmark = pytest.mark.slow

PROMPT = "a small red star in the top left on a blue background"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run: its workspace and its overrides."""
    root = tmp_path_factory.mktemp("serve") / "data"
    overrides = small(root, download__limit=20)
    finish(overrides)
    return root, overrides


def test_files_of_a_run_have_the_mode_of_the_umask(workspace: tuple[Path, list[str]]) -> None:
    (workspace[0] / "usual").touch()
    mode = (workspace[0] / "usual").stat().st_mode
    assert [
        path for path in workspace[0].rglob("*") if path.is_file() and path.stat().st_mode != mode
    ] == []


@contextmanager
def serving(overrides: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    with start("serve", TINY, *overrides, "--port", str(port)) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line == f"tiny  http://127.0.0.1:{port}/\n", line + process.stdout.read()
            yield process, port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def site(workspace: tuple[Path, list[str]]) -> Iterator[int]:
    with serving(workspace[1]) as (_, port):
        yield port


def generator(overrides: list[str]) -> ImageGenerator:
    from pipeline.config.load import load_config

    model = stage_statuses(RunInputs(load_config(TINY, overrides)))["train"].manifest
    assert model
    return load_generator(
        model.file("denoiser.safetensors"),
        "shapes-vae",
        "shapes-clip",
        "cpu",
        safetensors_only=True,
    )


def test_it_draws_what_the_model_draws_and_shows_its_card(
    site: int, workspace: tuple[Path, list[str]]
) -> None:
    answer = ask(site, "POST", "/pictures", {"prompt": PROMPT, "seed": 7, "count": 3})
    assert answer.status == 200, answer.body
    first = Image.open(io.BytesIO(base64.b64decode(answer.json["pictures"][0]["png"])))
    sampling = SamplingSettings(answer.json["steps"], answer.json["guidance"])
    drawn = generator(workspace[1])([PROMPT] * 2, [7, 9], sampling)
    assert np.abs(np.asarray(first).astype(int) - drawn[0]).max() <= 1
    third = Image.open(io.BytesIO(base64.b64decode(answer.json["pictures"][2]["png"])))
    assert np.abs(np.asarray(third).astype(int) - drawn[1]).max() <= 1
    card = ask(site, "GET", "/card").json
    assert card["encoders"] == {"vae": "shapes-vae", "clip": "shapes-clip"}
    assert card["model"]["training steps"] == 12
    assert len(card["examples"]) > 10
    assert 0 <= card["scores"]["prompt_accuracy"] <= 1
    assert str(workspace[0]) not in json.dumps(card), "no path of this machine"


def test_another_model_is_served_in_place_of_that_of_the_run(
    workspace: tuple[Path, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    save_model(tmp_path / "mine/denoiser.safetensors", 1)
    with serving([*workspace[1], "--model", str(tmp_path / "mine")]) as (_, port):
        card = ask(port, "GET", "/card").json
        assert ask(port, "POST", "/pictures", {"prompt": PROMPT}).status == 200
        tokens = ask(port, "POST", "/tokens", {"prompt": PROMPT}).json
    assert card["model"]["source"] == "denoiser.safetensors"
    assert not {"training steps", "fingerprint"} & set(card["model"]), "those are of the run's"
    assert (card["edge"], card["multiple"], card["scores"]) == (64, 16, {})
    assert len(card["examples"]) > 10, "the captions are those of the config"
    assert all(parse_caption(caption) for caption in card["examples"])
    assert 12 <= tokens["tokens"] <= tokens["limit"]
    missing = tld("serve", TINY, *workspace[1], "--model", str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "--model: there is no file" in missing.stderr


@needs_browser
def test_a_browser_types_a_prompt_and_sees_pictures(site: int, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    screenshots = Path(os.environ.get("TLD_SCREENSHOTS", tmp_path))
    with browser_page(1280, 860) as (page, wrong):
        page.goto(f"http://127.0.0.1:{site}/")
        expect(page.get_by_role("heading", name="tiny")).to_be_visible()
        expect(page.get_by_label("Steps")).to_have_value("4")

        page.get_by_label("Prompt", exact=True).fill("a large <b>green</b> ring")
        page.get_by_label("Images", exact=True).fill("3")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("article img")).to_have_count(3)
        expect(page.get_by_role("heading", name="a large <b>green</b> ring")).to_be_visible()
        assert page.locator("article img").first.evaluate("img => img.naturalWidth") == 64

        page.get_by_label("Prompt", exact=True).fill(PROMPT)
        page.get_by_label("Prompt", exact=True).press("Control+Enter")
        expect(page.locator("article")).to_have_count(2)
        expect(page.locator("article img")).to_have_count(6)
        page.get_by_text("About this model").click()
        expect(page.get_by_text("shapes-clip")).to_be_visible()
        page.screenshot(path=screenshots / "serve.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.screenshot(path=screenshots / "serve-phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, (
            "nothing to scroll sideways"
        )

        page.locator("article").last.get_by_role("button", name="Use again").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a large <b>green</b> ring")
        page.locator("article .tile").first.click()
        expect(page.get_by_role("link", name="Download")).to_be_visible()
        page.screenshot(path=screenshots / "serve-large.png")
        page.get_by_role("button", name="Outpaint", exact=True).click()
        expect(page.get_by_label("Right, pixels")).to_have_value("40")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("article").first.locator("img")).to_have_count(1)
        assert page.locator("article img").first.evaluate(
            "img => [img.naturalWidth, img.naturalHeight]"
        ) == [104, 64]

        page.get_by_role("tab", name="Edit").click()
        page.get_by_label("Images", exact=True).fill("2")
        page.get_by_label("Mask").focus()
        for key in ("Space", "ArrowRight", "Space"):
            page.keyboard.press(key)
        page.get_by_role("button", name="Surprise me").click()
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("article").first.locator("img")).to_have_count(2)
        expect(page.get_by_text("strength 1 with a mask")).to_be_visible()

        page.get_by_role("tab", name="Interpolate").click()
        page.get_by_label("To", exact=True).fill(
            "a large blue circle in the center on a white background"
        )
        page.get_by_label("Frames").fill("5")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("article").first.locator("img")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, (
            "nothing to scroll sideways"
        )
        page.screenshot(path=screenshots / "serve-tabs.png", full_page=True)
        assert not wrong


def test_sigterm_lets_the_drawing_finish_and_ends_with_0(workspace: tuple[Path, list[str]]) -> None:
    with (
        serving(workspace[1]) as (process, port),
        closing(http.client.HTTPConnection("127.0.0.1", port)) as client,
    ):
        body = json.dumps({"prompt": PROMPT, "count": 16, "steps": 60})
        client.request("POST", "/pictures/stream", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        while json.loads(answer.readline())["event"] != "step":
            pass
        os.kill(process.pid, signal.SIGTERM)
        events = [json.loads(line)["event"] for line in answer.read().splitlines()]
        assert events[-1] == "finished"
        assert events.count("picture") == 16
        assert process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            ask(port, "GET", "/healthz")


def test_a_mistake_is_told_before_the_model_is_loaded(workspace: tuple[Path, list[str]]) -> None:
    done = tld("serve", TINY, *workspace[1], "--host", "0.0.0.0")
    assert done.returncode == 2, done.stdout
    assert "so the service needs --token-file" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(UserError, match="must be between 0 and 65535"):
        listen("127.0.0.1", 65536)
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "weights", "pickled", "load"),
    [
        ("shapes-clip", "model.safetensors", "pytorch_model.bin", load_text_encoder),
        (
            "shapes-vae",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.bin",
            load_image_codec,
        ),
    ],
)
def test_only_safetensors_are_loaded(
    tmp_path: Path, name: str, weights: str, pickled: str, load: Callable[..., object]
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(SHIPPED_ENCODERS[name], folder)
    torch.save(load_file(folder / weights), folder / pickled)
    (folder / weights).unlink()
    load(str(folder), "cpu")
    with pytest.raises(EncoderError, match="safetensors"):
        load(str(folder), "cpu", safetensors_only=True)
