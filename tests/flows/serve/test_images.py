"""Images of the service say how they were made, as those of the commands do."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.serve.images import answer, generated_images
from pipeline.generate.generator import load_generator
from pipeline.generate.image_metadata import Origin
from pipeline.generate.model_source import ModelSource
from pipeline.generate.request import InputFile
from pipeline.generate.tiling import Border
from pipeline.serving.generate_batch import draw_with
from pipeline.serving.queue_events import Finished
from pipeline.serving.requests import (
    DrawingRequest,
    EditingRequest,
    ImageRequest,
    ImageToEdit,
    InterpolationRequest,
    OutpaintingRequest,
)
from tests.flows.cli.test_sample import save_model
from tests.pipeline.generate.test_earlier_metadata import FORMAT_1
from tests.support.fuzz import run_tld
from tests.support.small import TINY
from tests.support.untrained import ORIGIN
from tld_model.config import SamplingSettings

SAMPLING = SamplingSettings(2, 3.0, "heun", (0.0, 0.9))
IN, MASK = FORMAT_1 / "in.png", FORMAT_1 / "mask.png"
FILE, MASK_FILE = (InputFile.of(path.stem, path.read_bytes()) for path in (IN, MASK))
PIXELS = np.array(Image.open(IN).convert("RGB"))
WHITE = np.asarray(Image.open(MASK).convert("L")) > 127
REQUESTS: list[tuple[DrawingRequest, list[object]]] = [
    (ImageRequest("a star", 7, 2, SAMPLING), ["sample"]),
    (InterpolationRequest("a star", "a ring", 7, 8, 3, SAMPLING), ["interpolate"]),
    (InterpolationRequest("a star", "a star", 7, 7, 2, SAMPLING), ["interpolate"]),
    (ImageRequest("a star", 7, 1, SAMPLING, "a ring", (128, 64)), ["sample"]),
    (EditingRequest("a star", ImageToEdit(PIXELS, FILE), 0.6, 7, 2, SAMPLING), ["edit", IN]),
    (
        EditingRequest(
            "a star",
            ImageToEdit(PIXELS, FILE, WHITE, MASK_FILE),
            1.0,
            7,
            1,
            SAMPLING,
            "a ring",
        ),
        ["edit", IN, "--mask", MASK],
    ),
    (
        OutpaintingRequest(
            "a star",
            PIXELS,
            FILE,
            Border(right=9, top=7),
            7,
            SAMPLING,
        ),
        ["edit", IN],
    ),
]


@pytest.mark.parametrize(("request_", "command"), REQUESTS)
def test_like_repeats_an_image_of_the_service(
    request_: DrawingRequest, command: list[object], tmp_path: Path
) -> None:
    model = save_model(tmp_path / "denoiser.safetensors", 1)
    source = ModelSource(model, "shapes-vae", "shapes-clip", "test")
    draw = draw_with(load_generator(model, "shapes-vae", "shapes-clip", "cpu", precision="fp32"))
    (pixels,) = draw([request_], lambda *_: [True])
    origin = Origin.of(source.identity(), "cpu")
    for number, image in enumerate(generated_images(request_, Finished(pixels), origin)):
        served, again = tmp_path / "served.png", tmp_path / "again.png"
        served.write_bytes(base64.b64decode(image.png))
        options = ("--like", served, "--model", model, f"root={tmp_path}", "--out", again)
        settings = ("evaluate.device=cpu", "evaluate.precision=fp32")
        ended = run_tld(command[0], TINY, *command[1:], *options, *settings)
        assert ended.code == 0, ended.output
        repeated = np.asarray(Image.open(again)).astype(int)
        # A batch of several images may round otherwise.
        most = 1 if request_.count > 1 or isinstance(request_, ImageRequest) else 0
        assert np.abs(repeated - pixels[number]).max() <= most


def test_an_answer_names_the_seed_of_each_image() -> None:
    request = ImageRequest("a star", 7, 2, SAMPLING)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    body = json.loads(answer(request, Finished(images), ORIGIN))
    assert [image["seed"] for image in body.pop("pictures")] == [7, 8]
    assert body == {"prompt": "a star", "steps": 2, "guidance": 3.0}
