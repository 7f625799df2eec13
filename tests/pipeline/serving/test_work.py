"""What a request costs, compared with what the model is made to compute for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.generate.request import InputFile
from pipeline.generate.tiling import Border
from pipeline.serving.generate_batch import draw_with
from pipeline.serving.requests import (
    DrawingRequest,
    EditingRequest,
    ImageRequest,
    ImageToEdit,
    InterpolationRequest,
    OutpaintingRequest,
)
from pipeline.serving.work import ModelWork
from tests.support.untrained import untrained_generator
from tld_model.config import DenoiserConfig, SamplingSettings

OWN = SamplingSettings(steps=10, guidance=3.0)
EDGE = 64
IMAGE = ImageRequest("a star", 0, 4, OWN)
FILE = InputFile(name="x", sha256="0" * 64)
BLACK = np.zeros((EDGE, EDGE, 3), np.uint8)
HALF = np.arange(EDGE * EDGE).reshape(EDGE, EDGE) < EDGE * EDGE // 2
EDIT = EditingRequest("a star", ImageToEdit(BLACK, FILE, HALF, FILE), 1, 0, 2, OWN)
OUTPAINT = OutpaintingRequest("a star", BLACK, FILE, Border(right=40), 0, OWN)
FRAMES = InterpolationRequest("a star", "a ring", 0, 0, 3, OWN)


def work(request: DrawingRequest, own: SamplingSettings = OWN) -> int:
    return ModelWork(untrained_generator().denoiser.config, EDGE, own)(request)


@pytest.mark.parametrize(
    "request_",
    [
        IMAGE,
        FRAMES,
        EDIT,
        OUTPAINT,
        replace(IMAGE, sampling=replace(OWN, steps=30)),
        replace(IMAGE, sampling=replace(OWN, solver="heun")),
        replace(IMAGE, sampling=replace(OWN, steps=40, guidance=1.0)),
        replace(IMAGE, sampling=replace(OWN, steps=40, guidance_interval=(0.2, 0.7))),
        replace(IMAGE, negative="a ring"),
        replace(
            EDIT,
            image=replace(EDIT.image, paint=None),
            strength=0.5,
            sampling=replace(OWN, steps=80),
        ),
    ],
)
def test_it_follows_the_rows_that_the_model_computes(request_: DrawingRequest) -> None:
    generator, rows = untrained_generator(), 0

    def count(_: object, inputs: tuple[object, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])  # type: ignore[arg-type]

    generator.denoiser.register_forward_pre_hook(count)
    draw_with(generator)([request_], lambda *_: [True])
    images = rows / (2 * OWN.steps)
    assert images - 0.5 <= work(request_) <= 1.2 * images + 1


def test_an_image_counts_at_least_as_one() -> None:
    for cheap in (replace(OWN, steps=1), replace(OWN, guidance=1.0)):
        assert work(replace(IMAGE, sampling=cheap)) == 4
    assert work(replace(IMAGE, size=(16, 16))) == 4
    few_steps = SamplingSettings(4, 1.0)
    assert work(IMAGE, few_steps) == 4 * 5, "of a model of few steps, usual ones are many"


def test_pixels_count_and_those_of_attention_by_their_square() -> None:
    one = replace(IMAGE, count=1)
    for side, model, images in (
        (512, DenoiserConfig(latent_size=32, width=768), 5),  # 4.2 of 4 times the pixels
        (2048, DenoiserConfig(latent_size=128, width=768), 10),  # attention is half of it
    ):
        large = replace(one, size=(side, side))
        assert ModelWork(model, side // 2, OWN)(large) == images
    tokens = DenoiserConfig(text="tokens")
    assert ModelWork(tokens, EDGE, OWN)(FRAMES) == 6, "each frame has two predictions"
    assert ModelWork(DenoiserConfig(inpainting=True), EDGE, OWN)(EDIT) == 2
