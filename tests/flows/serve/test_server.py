"""The service on loopback: a real server and a real client; a model that draws when the test lets
it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flows.serve.app import Service, image_service
from flows.serve.card import Card
from flows.serve.guard import Access, read_access
from flows.terminal.errors import UserError
from pipeline.compute.polling import wait_until
from pipeline.generate.image_metadata import ImageMetadata
from pipeline.generate.request import EditRequest, InputFile, InterpolateRequest, SampleRequest
from pipeline.generate.tiling import Border
from pipeline.serving.batch_queue import BeforeStep
from pipeline.serving.requests import DrawingRequest, ImageRequest
from tests.support.browser import browser_page, needs_browser
from tests.support.live import Answer, ask, live
from tests.support.served import LONGEST_PROMPT, served_model
from tests.support.untrained import ORIGIN
from tld_model.config import SamplingSettings

CARD = Card(
    name="test",
    model={"parameters": 7, "training pairs": 3},
    data={},
    encoders={},
    sampling={"steps": 3, "guidance": 2.0},
    scores={},
    edge=8,
    multiple=4,
    example="a star",
)
TOKEN = "a-token-that-nobody-guesses"
STEPS = 3
WAIT_S = 30


class Studio:
    """A service that draws one step a permit, grey pictures whose level is the seed."""

    def __init__(self, access: Access | None = None, examples: Sequence[str] = ()) -> None:
        self.port = 0
        self.permits = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        card = CARD.model_copy(update={"examples": list(examples)})
        model = served_model(self.draw, card, SamplingSettings(STEPS, 2.0))
        self.service: Service = image_service(model, access or Access(), 16)

    def draw(
        self, requests: Sequence[DrawingRequest], before_step: BeforeStep
    ) -> list[NDArray[np.uint8]]:
        for done in range(requests[0].sampling.steps):
            assert self.permits.acquire(timeout=30)
            before_step(done, partial(self.previews, requests) if done else None)
        self.batches.append([request.count for request in requests])
        if any(request.prompt == "broken" for request in requests):
            raise ZeroDivisionError("the secret of the house")
        return [
            np.full((request.count, *_shape(request), 3), request.seed % 256, np.uint8)
            for request in requests
        ]

    def previews(self, requests: Sequence[DrawingRequest]) -> list[NDArray[np.uint8]]:
        return [np.full((request.count, 8, 8, 3), 99, np.uint8) for request in requests]

    def go_on(self, steps: int = 10_000) -> None:
        self.permits.release(steps)


def _shape(request: DrawingRequest) -> tuple[int, int]:
    size = request.size if isinstance(request, ImageRequest) else None
    return (size[1], size[0]) if size else (8, 8)


@pytest.fixture
def studio() -> Iterator[Studio]:
    studio = Studio()
    with live(studio.service) as studio.port:
        yield studio
        studio.go_on()


@pytest.fixture(scope="module")
def open_port() -> Iterator[int]:
    """A service that draws at once, for tests that leave nothing behind."""
    studio = Studio()
    studio.go_on()
    with live(studio.service) as port:
        yield port


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as pool:
        yield pool


def metadata(image: Image.Image) -> ImageMetadata:
    return ImageMetadata.model_validate_json(image.info["tld"])


def draw(port: int, prompt: str = "a star", **more: object) -> Answer:
    return ask(port, "POST", "/pictures", {"prompt": prompt, **more})


def begin(studio: Studio, threads: ThreadPoolExecutor) -> Future[Answer]:
    """A request that is being drawn, in its first step."""
    future = threads.submit(draw, studio.port)
    studio.go_on(1)
    assert wait_until(lambda: studio.permits._value == 0, WAIT_S, every_s=0.01)
    return future


def test_an_answer_says_all_that_made_the_pictures(open_port: int) -> None:
    answer = draw(open_port, count=2, seed=7)
    assert answer.status == 200
    body = answer.json
    images = [Image.open(io.BytesIO(base64.b64decode(one["png"]))) for one in body.pop("pictures")]
    assert body == {"prompt": "a star", "steps": STEPS, "guidance": 2.0}
    assert [np.asarray(image).shape for image in images] == [(8, 8, 3)] * 2
    for seed, image in zip((7, 8), images, strict=True):
        request = SampleRequest(
            prompts=("a star",),
            seed=seed,
            count=1,
            size=(8, 8),
            layout="picture",
            **asdict(SamplingSettings(STEPS, 2.0)),
        )
        assert metadata(image) == ImageMetadata(request=request, origin=ORIGIN)


def test_an_image_has_the_size_solver_and_negative_prompt_that_were_asked_for(
    open_port: int,
) -> None:
    asked = {"negative": "a ring", "solver": "heun", "width": 16, "height": 12}
    answer = ask(open_port, "POST", "/pictures", {"prompt": "a star", **asked})
    assert answer.status == 200, answer.body
    image = Image.open(io.BytesIO(base64.b64decode(answer.json["pictures"][0]["png"])))
    assert image.size == (16, 12)
    request = metadata(image).request
    assert isinstance(request, SampleRequest)
    assert (request.negative, request.solver, request.size) == ("a ring", "heun", (16, 12))


def test_the_tokens_of_a_prompt_are_counted(open_port: int) -> None:
    answer = ask(open_port, "POST", "/tokens", {"prompt": "a red star in a corner of the sky"})
    assert answer.json == {"tokens": 9, "limit": LONGEST_PROMPT}
    assert ask(open_port, "POST", "/tokens", {"prompt": ""}).json["tokens"] == 0
    assert ask(open_port, "POST", "/tokens", {"prompt": "x" * 1001}).status == 422


def test_those_who_come_together_are_drawn_together(
    studio: Studio, threads: ThreadPoolExecutor
) -> None:
    first = begin(studio, threads)
    futures = [threads.submit(draw, studio.port, seed=seed) for seed in range(16)]
    assert wait_until(lambda: studio.service.batches.waiting == 16, WAIT_S, every_s=0.01)
    assert ask(studio.port, "GET", "/healthz").status == 200, "the event loop is free meanwhile"
    studio.go_on()
    assert first.result().status == 200
    assert [len(future.result().json["pictures"]) for future in futures] == [1] * 16
    assert studio.batches == [[1], [1] * 16]
    metrics = ask(studio.port, "GET", "/metrics").body.decode()
    assert 'tld_batch_pictures_bucket{le="16.0"} 2.0' in metrics
    assert 'tld_requests_total{path="/pictures",status="200"} 17.0' in metrics


def test_a_full_queue_answers_429_and_none_in_it_is_lost(
    studio: Studio, threads: ThreadPoolExecutor
) -> None:
    first = begin(studio, threads)
    futures = [threads.submit(draw, studio.port, count=16) for _ in range(6)]
    assert wait_until(lambda: sum(future.done() for future in futures) == 2, WAIT_S, every_s=0.01)
    refused = [future.result() for future in futures if future.done()]
    assert [answer.status for answer in refused] == [429, 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert studio.service.batches.waiting == 64
    studio.go_on()
    assert first.result().status == 200
    assert sorted(future.result().status for future in futures) == [200] * 4 + [429] * 2


@pytest.mark.parametrize(
    ("path", "body", "work"),
    [
        ("/pictures", {"width": 16, "height": 16}, 5),
        ("/pictures/stream", {"count": 2, "steps": 9}, 6),
        ("/interpolations", {"to_prompt": "a ring", "frames": 3, "solver": "heun"}, 5),
        ("/edits", {"picture": "8x8", "mask": "8x8", "count": 2}, 4),
        ("/outpaintings/stream", {"picture": "8x8", "right": 5}, 2),
        ("/v1/images/generations", {"n": 2, "size": "16x16"}, 10),
    ],
)
def test_the_queue_counts_what_a_request_costs_wherever_it_comes(
    studio: Studio, threads: ThreadPoolExecutor, path: str, body: dict[str, object], work: int
) -> None:
    first = begin(studio, threads)
    sent = {name: png(8, 8, "white") if value == "8x8" else value for name, value in body.items()}
    threads.submit(ask, studio.port, "POST", path, {"prompt": "a star", **sent})
    assert wait_until(lambda: studio.service.batches.waiting == work, WAIT_S, every_s=0.01)
    filling = [threads.submit(draw, studio.port, count=16) for _ in range(3)]
    assert wait_until(lambda: studio.service.batches.waiting == 48 + work, WAIT_S, every_s=0.01)
    assert draw(studio.port, count=16).status == 429
    studio.go_on()
    assert {future.result().status for future in (first, *filling)} == {200}


def test_a_request_that_never_fits_is_told_the_bound(open_port: int) -> None:
    answer = draw(open_port, count=16, steps=13)
    assert answer.status == 422
    assert "is the work of 70 images" in answer.json["detail"][0]["msg"]
    assert "the maximum is 64" in answer.json["detail"][0]["msg"]
    answer = draw(open_port, width=20, height=16)
    assert "20x16 has more than 4 times the pixels" in answer.json["detail"][0]["msg"]
    assert draw(open_port, width=32).status == 200


@pytest.mark.parametrize("path", ["/pictures", "/pictures/stream"])
def test_who_leaves_is_not_drawn_for(
    studio: Studio, threads: ThreadPoolExecutor, path: str
) -> None:
    first = begin(studio, threads)
    leaving = http.client.HTTPConnection("127.0.0.1", studio.port)
    leaving.request(
        "POST", path, b'{"prompt": "a star", "count": 9}', {"Content-Type": "application/json"}
    )
    assert wait_until(lambda: studio.service.batches.waiting == 9, WAIT_S, every_s=0.01)
    leaving.sock.close()
    assert wait_until(lambda: studio.service.batches.waiting == 0, WAIT_S, every_s=0.01)
    studio.go_on()
    assert first.result().status == 200
    assert studio.batches == [[1]]
    assert "tld_clients_left_total 1.0" in ask(studio.port, "GET", "/metrics").body.decode()


def test_who_leaves_while_being_drawn_sets_the_device_free(studio: Studio) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", studio.port)) as leaving:
        body = b'{"prompt": "a star", "steps": 100}'
        leaving.request("POST", "/pictures/stream", body, {"Content-Type": "application/json"})
        studio.go_on(1)
        answer = leaving.getresponse()
        assert [json.loads(answer.readline())["event"] for _ in range(2)] == ["waiting", "step"]
    answer.close()
    assert wait_until(
        lambda: "tld_clients_left_total 1.0" in ask(studio.port, "GET", "/metrics").body.decode(),
        WAIT_S,
        every_s=0.01,
    )
    studio.go_on(1 + STEPS)
    assert draw(studio.port).status == 200
    assert studio.batches == [[1]]


def test_the_stream_tells_how_far_it_is(open_port: int) -> None:
    answer = ask(open_port, "POST", "/pictures/stream", {"prompt": "a star", "count": 2, "seed": 5})
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert events[0] == {"event": "waiting", "ahead": 0}
    assert events[1:4] == [{"event": "step", "done": done, "steps": STEPS} for done in range(STEPS)]
    assert [event.get("seed") for event in events[4:6]] == [5, 6]
    assert events[6:] == [{"event": "finished"}]


@pytest.mark.usefixtures("fast_previews")
def test_the_stream_shows_what_images_look_like_by_now_to_those_who_ask(
    open_port: int, studio: Studio
) -> None:
    body = {"prompt": "a star", "count": 2, "seed": 5}
    with closing(http.client.HTTPConnection("127.0.0.1", studio.port)) as client:
        typed = {"Content-Type": "application/json"}
        client.request("POST", "/pictures/stream?previews=true", json.dumps(body), typed)
        studio.go_on(2)
        answer = client.getresponse()
        events = [json.loads(answer.readline()) for _ in range(5)]
        studio.go_on()
        later = [json.loads(line)["event"] for line in answer.read().splitlines()]
    assert [event["event"] for event in events] == ["waiting", "step", "step", *["preview"] * 2]
    assert [name for name in later if name != "preview"] == ["step", *["picture"] * 2, "finished"]
    previews = events[3:]
    assert [event["seed"] for event in previews] == [5, 6]
    image = Image.open(io.BytesIO(base64.b64decode(previews[0]["png"])))
    assert (image.size, image.getpixel((0, 0))) == ((8, 8), (99, 99, 99))
    assert "tld" not in image.info, "metadata would describe a finished image"
    plain = ask(open_port, "POST", "/pictures/stream", body)
    assert b"preview" not in plain.body
    assert ask(open_port, "POST", "/pictures/stream?previews=maybe", body).status == 422


@pytest.mark.parametrize("path", ["/pictures", "/pictures/stream"])
def test_a_failure_is_told_by_its_id_alone(
    studio: Studio, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    studio.go_on()
    with caplog.at_level(logging.ERROR):
        answer = ask(studio.port, "POST", path, {"prompt": "broken"})
    problem = json.loads(answer.body.splitlines()[-1])
    assert answer.status == (500 if path == "/pictures" else 200)
    assert problem["id"] in caplog.text
    assert "the secret of the house" in caplog.text
    assert b"secret" not in answer.body
    assert b"ZeroDivision" not in answer.body
    assert draw(studio.port).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": "\x1c"}, "prompt"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "x", "count": 0}, "count"),
        ({"prompt": "x", "count": 17}, "count"),
        ({"prompt": "x", "count": True}, "count"),
        ({"prompt": "x", "steps": 201}, "steps"),
        ({"prompt": "x", "steps": "20"}, "steps"),
        ({"prompt": "x", "guidance": 0.5}, "guidance"),
        ({"prompt": "x", "guidance": float("nan")}, "guidance"),
        ({"prompt": "x", "guidance": float("inf")}, "guidance"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "seed": 2**32}, "seed"),
        ({"prompt": "x", "stepz": 9}, "stepz"),
        ({"prompt": "x", "solver": "magic"}, "solver"),
        ({"prompt": "x", "negative": "x" * 1001}, "negative"),
        ({"prompt": "x", "negative": "a ring", "guidance": 1}, "negative"),
        ({"prompt": "x", "width": 9}, "width"),
        ({"prompt": "x", "height": 0}, "height"),
        ({"prompt": "x", "width": 16, "height": 16, "count": 5}, "width"),
        ({"prompt": "x", "width": 20, "height": 16}, "width"),
        ({"prompt": "x", "width": 36}, "width"),
        ({"prompt": "x", "count": 16, "steps": 13}, "steps"),
        ({"prompt": "x", "count": 10, "steps": 15, "solver": "heun"}, "steps"),
    ],
)
def test_a_field_out_of_bounds_is_named(open_port: int, body: object, field: str) -> None:
    answer = ask(open_port, "POST", "/pictures", body)
    assert answer.status == 422
    assert [problem["loc"] for problem in answer.json["detail"]] == [["body", field]]


def test_what_is_no_json_or_too_large_or_elsewhere_is_refused(open_port: int) -> None:
    text = {"Content-Type": "text/plain"}
    for raw in (
        b"{",
        b"\xff\xfe",
        b"[" * 15_000,
        b"9" * 5000,
        b'{"prompt": "x", "\\ud800": 1}',
        b"null",
    ):
        assert ask(open_port, "POST", "/pictures", raw=raw).status in (400, 422), raw[:30]
    assert (
        ask(open_port, "POST", "/pictures", raw=b'{"prompt": "a star"}', headers=text).status == 422
    )
    assert ask(open_port, "POST", "/pictures", {"prompt": "x" * 17_000}).status == 413
    chunked = http.client.HTTPConnection("127.0.0.1", open_port)
    chunked.request("POST", "/pictures", iter([b"x" * 10_000] * 2), encode_chunked=True)
    assert chunked.getresponse().status == 413
    chunked.close()
    assert ask(open_port, "GET", "/pictures").status == 405
    assert ask(open_port, "GET", "/docs").status == 404


def test_a_page_of_a_stranger_gets_nothing(open_port: int) -> None:
    asked = ask(
        open_port, "POST", "/pictures", {"prompt": "x"}, {"Origin": "http://elsewhere.example"}
    )
    before = ask(open_port, "OPTIONS", "/pictures", headers={"Origin": "http://elsewhere.example"})
    for answer in (asked, before):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert ask(open_port, "GET", "/card", headers={"Host": "elsewhere.example"}).status == 421
    assert ask(open_port, "GET", "/card", headers={"Host": "localhost:80"}).status == 200


def test_tokens_are_asked_for_before_a_body_is_read(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"# of the team\n{TOKEN}\n\nanother-token-0123456789\n")
    studio = Studio(read_access("0.0.0.0", tokens))
    studio.go_on()
    with live(studio.service) as port:
        for path in ("/", "/page/page.js", "/healthz", "/readyz", "/openapi.json"):
            assert ask(port, "GET", path).status == 200
        for credentials in ("", TOKEN, f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer ü"):
            headers = {"Authorization": credentials.encode("latin-1").decode("latin-1")}
            for method, path in (
                ("GET", "/card"),
                ("GET", "/metrics"),
                ("GET", "/page"),
                ("POST", "/tokens"),
                ("POST", "/pictures"),
                ("POST", "/pictures/stream"),
            ):
                refused = ask(port, method, path, headers=headers, raw=b"no json")
                assert refused.status == 401
                assert refused.headers["www-authenticate"] == "Bearer"
        for token in (TOKEN, "another-token-0123456789"):
            headers = {"Authorization": f"Bearer {token}", "Host": "pictures.example"}
            assert ask(port, "POST", "/pictures", {"prompt": "x"}, headers).status == 200


@needs_browser
def test_the_page_asks_for_the_token_and_tells_what_is_wrong(tmp_path: Path) -> None:
    from playwright.sync_api import expect

    tokens = tmp_path / "tokens.txt"
    tokens.write_text(TOKEN)
    studio = Studio(read_access("127.0.0.1", tokens))
    with live(studio.service) as port, browser_page(900, 700) as (page, _):
        page.goto(f"http://127.0.0.1:{port}/")
        for token, says in (
            ("wrong", "The service does not accept this token."),
            (TOKEN, "7 parameters"),
        ):
            page.get_by_label("This service requires a token").fill(token)
            page.get_by_role("button", name="Enter").click()
            expect(page.get_by_text(says)).to_be_visible()
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        studio.go_on(1)
        expect(page.get_by_text("Step 0 of 3.")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Stopped at step 0 of 3; no image was finished.")).to_be_visible()
        expect(page.locator("article")).to_have_count(1)
        page.get_by_label("Prompt", exact=True).fill("broken")
        studio.go_on()
        page.get_by_role("button", name="Generate").click()
        expect(
            page.get_by_text("Internal error; the service's log has the details under this id: ")
        ).to_be_visible()
        expect(page.locator("article")).to_have_count(1)


@pytest.mark.parametrize(
    ("host", "tokens", "says"),
    [
        ("0.0.0.0", None, "can be reached from other machines, so the service needs --token-file"),
        ("::", None, "so the service needs --token-file"),
        ("no-such-host.invalid", None, "no such address"),
        ("127.0.0.1", "", "contains no token"),
        ("127.0.0.1", "# none\n", "contains no token"),
        ("127.0.0.1", "short", "shorter than 16 characters"),
    ],
)
def test_a_service_that_would_be_open_does_not_start(
    tmp_path: Path, host: str, tokens: str | None, says: str
) -> None:
    file = None
    if tokens is not None:
        file = tmp_path / "tokens.txt"
        file.write_text(tokens)
    with pytest.raises(UserError, match=says):
        read_access(host, file)
    with pytest.raises(UserError, match="cannot read"):
        read_access(host, tmp_path / "gone.txt")
    assert read_access("localhost", None).hosts >= {"localhost", "127.0.0.1"}


def test_a_closing_service_finishes_what_is_begun_and_says_503(
    studio: Studio, threads: ThreadPoolExecutor
) -> None:
    first = begin(studio, threads)
    waiting = threads.submit(draw, studio.port)
    assert wait_until(lambda: studio.service.batches.waiting == 1, WAIT_S, every_s=0.01)
    assert ask(studio.port, "GET", "/readyz").status == 200
    studio.service.batches.close()
    assert waiting.result().status == 503
    assert draw(studio.port).status == 503
    assert ask(studio.port, "GET", "/readyz").status == 503
    studio.go_on()
    assert first.result().status == 200


def test_openapi_teaches_by_examples(open_port: int) -> None:
    openapi = ask(open_port, "GET", "/openapi.json").json
    schema = openapi["components"]["schemas"]["ImagesRequested"]
    assert schema["examples"][1]["count"] == 4
    assert all("description" in field for field in schema["properties"].values())
    assert {"200", "400", "401", "408", "413", "421", "422", "429", "500", "503"} <= set(
        openapi["paths"]["/pictures"]["post"]["responses"]
    )


def png(width: int, height: int, colour: str = "red") -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"picture": "cGljdHVyZQ==", "right": 8}, "is not a PNG file in base64"),
        ({"picture": "§", "right": 8}, "is not a PNG file in base64"),
        ({"picture": png(8, 9), "right": 8}, "must have 8 x 8 pixels, but has 8 x 9"),
        ({"picture": png(8, 8)}, "give the number of pixels to add on at least one side"),
        (
            {"picture": png(8, 8), "right": 100, "bottom": 100},
            "windows of 8 pixels; the maximum is 16",
        ),
        ({"picture": "A" * 6_000_001, "right": 8}, "at most 6000000 characters"),
    ],
)
def test_a_picture_that_cannot_be_painted_on_is_told(
    open_port: int, body: dict[str, object], says: str
) -> None:
    answer = ask(open_port, "POST", "/outpaintings", {"prompt": "a star", **body})
    assert answer.status == 422, answer.body
    assert says in answer.json["detail"][0]["msg"]
    assert answer.json["detail"][0]["loc"][0] == "body"


def test_only_pictures_may_be_large(open_port: int) -> None:
    assert (
        ask(
            open_port, "POST", "/outpaintings", {"prompt": "a star", "picture": "A" * 7_000_000}
        ).status
        == 413
    )
    assert (
        ask(
            open_port, "POST", "/interpolations", {"prompt": "a star", "to_prompt": "A" * 20_000}
        ).status
        == 413
    )


def test_an_interpolation_answers_with_its_frames(open_port: int) -> None:
    answer = ask(
        open_port,
        "POST",
        "/interpolations",
        {"prompt": "a star", "to_prompt": "a ring", "frames": 3, "seed": 5},
    )
    assert answer.status == 200
    frames = [
        Image.open(io.BytesIO(base64.b64decode(entry["png"]))) for entry in answer.json["pictures"]
    ]
    requests = [metadata(frame).request for frame in frames]
    assert [getattr(request, "frame", None) for request in requests] == [0, 1, 2]
    assert requests[2] == InterpolateRequest(
        prompts=("a star", "a ring"),
        seed=5,
        frames=3,
        frame=2,
        **asdict(SamplingSettings(STEPS, 2.0)),
    )


@pytest.mark.parametrize(
    "more", [{}, {"to_prompt": "a star"}, {"to_prompt": "a star", "to_seed": 5}]
)
def test_frames_that_would_all_be_equal_are_refused(
    open_port: int, more: dict[str, object]
) -> None:
    asked = {"prompt": "a star", "seed": 5, **more}
    answer = ask(open_port, "POST", "/interpolations", asked)
    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["body", "to_prompt"]
    assert ask(open_port, "POST", "/interpolations", {**asked, "to_seed": 6}).status == 200


def test_an_edit_answers_with_its_variations(open_port: int) -> None:
    asked = {"prompt": "a star", "picture": png(8, 8), "mask": png(8, 8, "white"), "count": 2}
    answer = ask(open_port, "POST", "/edits", {**asked, "strength": 0.5, "seed": 7})
    assert answer.status == 200, answer.body
    images = [Image.open(io.BytesIO(base64.b64decode(p["png"]))) for p in answer.json["pictures"]]
    assert [metadata(image).request for image in images] == [
        EditRequest(
            prompts=("a star",),
            seed=seed,
            image=InputFile.of("picture", base64.b64decode(png(8, 8))),
            mask=InputFile.of("mask", base64.b64decode(png(8, 8, "white"))),
            strength=0.5,
            **asdict(SamplingSettings(STEPS, 2.0)),
        )
        for seed in (7, 8)
    ]


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"picture": "§"}, "picture", "is not a PNG file in base64"),
        ({"picture": "ok", "mask": "§"}, "mask", "is not a PNG file in base64"),
        ({"picture": "ok", "mask": "9x8"}, "mask", "must have 8 x 8 pixels, but has 9 x 8"),
        ({"picture": "ok", "mask": "black"}, "mask", "selects nothing"),
        ({"picture": "ok", "strength": 0}, "strength", "greater than 0"),
        ({"picture": "ok", "strength": 1.01}, "strength", "less than or equal to 1"),
        ({}, "picture", "Field required"),
    ],
)
def test_an_image_or_a_mask_that_cannot_be_edited_is_refused(
    open_port: int, body: dict[str, object], field: str, says: str
) -> None:
    files = {"ok": png(8, 8), "9x8": png(9, 8), "black": png(8, 8, "black")}
    sent = {name: files.get(str(value), value) for name, value in body.items()}
    answer = ask(open_port, "POST", "/edits", {"prompt": "a star", **sent})
    assert answer.status == 422, answer.body
    assert answer.json["detail"][0]["loc"] == ["body", field]
    assert says in answer.json["detail"][0]["msg"]


def test_painting_on_answers_with_one_picture(open_port: int) -> None:
    answer = ask(
        open_port, "POST", "/outpaintings", {"prompt": "a star", "picture": png(8, 8), "left": 3}
    )
    assert answer.status == 200, answer.body
    (one,) = answer.json["pictures"]
    image = Image.open(io.BytesIO(base64.b64decode(one["png"])))
    assert metadata(image).request == EditRequest(
        prompts=("a star",),
        seed=0,
        image=InputFile.of("picture", base64.b64decode(png(8, 8))),
        outpaint=Border(left=3),
        overlap=3,
        **asdict(SamplingSettings(STEPS, 2.0)),
    )


def test_a_device_that_fails_every_batch_is_not_ready_until_one_succeeds(studio: Studio) -> None:
    studio.go_on()
    for _ in range(3):
        assert ask(studio.port, "GET", "/readyz").status == 200
        assert draw(studio.port, "broken").status == 500
    assert ask(studio.port, "GET", "/readyz").status == 503
    assert draw(studio.port).status == 200
    assert ask(studio.port, "GET", "/readyz").status == 200
