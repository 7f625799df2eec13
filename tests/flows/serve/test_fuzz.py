"""Bodies that the service's own OpenAPI schema forbids, and some that it allows: whatever comes, no
500."""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies
from numpy.typing import NDArray

from flows.serve.app import image_service
from flows.serve.card import Card
from flows.serve.guard import Access
from pipeline.serving.batch_queue import BeforeStep
from pipeline.serving.generate_batch import draw_with
from pipeline.serving.requests import DrawingRequest
from tests.support.generated import generated
from tests.support.live import ask, ask_on, live
from tests.support.served import served_model
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings

pytestmark = pytest.mark.slow

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: make install"
)
BODIES = generated(250).max_examples
CARD = Card(
    name="test",
    model={},
    data={},
    encoders={},
    sampling={},
    scores={},
    edge=64,
    multiple=16,
    example="",
)


@pytest.mark.parametrize(
    "path",
    [
        "/pictures",
        "/pictures/stream",
        "/interpolations",
        "/edits",
        "/outpaintings",
        "/v1/images/generations",
    ],
)
def test_no_body_breaks_the_service(path: str) -> None:
    draw = draw_with(untrained_generator())

    def draw_in_one_step(
        requests: Sequence[DrawingRequest], before_step: BeforeStep
    ) -> Sequence[NDArray[np.uint8]]:
        own = SamplingSettings(1, requests[0].sampling.guidance)
        return draw(
            [dataclasses.replace(request, sampling=own) for request in requests], before_step
        )

    statuses: Counter[int] = Counter()
    model = served_model(draw_in_one_step, CARD, SamplingSettings(1, 2.0))
    with live(image_service(model, Access(), 16)) as port:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:

            def send(raw: bytes) -> None:
                answer = ask_on(client, "POST", path, raw=raw)
                statuses[answer.status] += 1
                assert answer.status in (200, 400, 413, 422), raw
                if answer.status == 200:
                    assert json.loads(answer.body.splitlines()[-1]).get("event") in (
                        None,
                        "finished",
                    ), raw

            operation = schemathesis.openapi.from_dict(ask(port, "GET", "/openapi.json").json)[
                path
            ]["POST"]
            modes = schemathesis.GenerationMode
            forbidden, allowed = (
                operation.as_strategy(mode).map(as_json)
                for mode in (modes.NEGATIVE, modes.POSITIVE)
            )
            fuzz(send, forbidden, BODIES * 8 // 10)
            fuzz(send, allowed, BODIES // 10)
            fuzz(send, strategies.binary(max_size=200), BODIES // 10)
        assert ask(port, "POST", "/pictures", {"prompt": "still there"}).status == 200
    assert statuses[422] + statuses[400] > BODIES // 4, statuses
    with_image = path in ("/edits", "/outpaintings")
    assert with_image or statuses[200] > BODIES // 40, statuses  # chance makes no PNG


def as_json(case: Any) -> bytes:
    """What a case sends; a body that is no JSON value is sent as its text."""
    return json.dumps(case.body, default=str).encode()


def fuzz(send: Any, bodies: Any, count: int) -> None:
    given_bodies: Any = given(bodies)
    settings(generated(250), max_examples=count, phases=[Phase.generate])(given_bodies(send))()
