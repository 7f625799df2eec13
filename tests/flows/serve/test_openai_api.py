"""OpenAI's images API as the service speaks it: its clients ask, and read answers and errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from flows.serve.guard import Access, read_access
from pipeline.generate.request import SampleRequest
from tests.flows.serve.test_server import TOKEN, Studio, metadata
from tests.support.live import Answer, ask, live

PATH = "/v1/images/generations"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    studio = Studio()
    studio.go_on()
    with live(studio.service) as port:
        yield port


def create(port: int, prompt: str = "a star", **more: object) -> Answer:
    return ask(port, "POST", PATH, {"prompt": prompt, **more})


def error_of(answer: Answer) -> dict[str, object]:
    assert list(answer.json) == ["error"]
    error: dict[str, object] = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_what_clients_send_is_answered_as_they_expect(port: int) -> None:
    asked = {"prompt": "a star", "n": 2, "size": "16x12", "seed": 7}
    more = {"model": "gpt-image-1", "user": "me", "response_format": "b64_json"}
    answer = ask(port, "POST", PATH, {**asked, **more})
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"created", "data"}
    assert answer.json["created"] > 1_700_000_000
    assert [one["seed"] for one in answer.json["data"]] == [7, 8]
    images = [Image.open(io.BytesIO(base64.b64decode(o["b64_json"]))) for o in answer.json["data"]]
    assert [image.size for image in images] == [(16, 12)] * 2
    request = metadata(images[1]).request
    assert isinstance(request, SampleRequest)
    assert (request.prompts, request.seed, request.steps) == (("a star",), 8, 3)


def test_without_a_seed_each_request_has_a_new_one_which_the_answer_names(port: int) -> None:
    seeds = [create(port, size="auto", n=None).json["data"][0]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "prompt", "prompt: Field required"),
        ({"prompt": " "}, "prompt", "prompt: "),
        ({"prompt": "x", "n": 17}, "n", "less than or equal to 16"),
        ({"prompt": "x", "size": "big"}, "size", "size: String should match"),
        ({"prompt": "x", "size": "9x8"}, "size", "multiples of 4 pixels"),
        ({"prompt": "x", "size": "16x16", "n": 16}, "size", "are more pixels than 16 of 8x8"),
        ({"prompt": "x", "size": "20x16"}, "size", "more than 4 times the pixels of the model"),
        ({"prompt": "x", "response_format": "url"}, "response_format", "should be 'b64_json'"),
        ({"prompt": "x", "quality": "hd"}, "quality", "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_errors_in_their_form(port: int, body: object, param: str, says: str) -> None:
    answer = ask(port, "POST", PATH, body)
    assert answer.status == 400
    error = error_of(answer)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, None)
    assert says in str(error["message"])


def test_all_other_errors_have_their_form_too(port: int) -> None:
    broken = create(port, "broken")
    assert (broken.status, error_of(broken)["type"]) == (500, "server_error")
    assert "secret" not in broken.body.decode()
    assert "id" in str(error_of(broken)["message"])
    for answer, status in (
        (create(port, "x" * 17_000), 413),
        (ask(port, "GET", PATH), 405),
        (ask(port, "GET", "/v1/models"), 404),
        (ask(port, "POST", PATH, {"prompt": "x"}, {"Host": "elsewhere.example"}), 421),
        (ask(port, "POST", PATH, raw=b"{"), 400),
    ):
        assert answer.status == status
        assert error_of(answer)["message"]
    assert list(ask(port, "GET", "/nowhere").json) == ["detail"], "elsewhere errors have our form"


def test_it_has_the_tokens_of_the_service(tmp_path_factory: pytest.TempPathFactory) -> None:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    tokens.write_text(TOKEN)
    studio = Studio(read_access("127.0.0.1", tokens))
    studio.go_on()
    with live(studio.service) as port:
        refused = create(port)
        assert (refused.status, error_of(refused)["code"]) == (401, "invalid_api_key")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(port, "POST", PATH, {"prompt": "a star"}, headers).status == 200


def test_it_has_the_queue_of_the_service() -> None:
    studio = Studio(Access())
    with live(studio.service) as port:
        studio.service.batches.close()
        closing = create(port)
        assert (closing.status, error_of(closing)["type"]) == (503, "server_error")
        assert closing.headers["retry-after"] == "10"
        studio.go_on()
