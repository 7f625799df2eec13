"""Same seed, same picture, whatever the batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import image_to_image
from pipeline.generate.inpaint import inpaint
from pipeline.generate.interpolate import interpolate
from pipeline.generate.request import InputFile
from pipeline.generate.tiling import Border
from pipeline.serving.generate_batch import draw_with
from pipeline.serving.previews import MakePreviews
from pipeline.serving.requests import (
    EditingRequest,
    ImageRequest,
    ImageToEdit,
    InterpolationRequest,
    OutpaintingRequest,
    share_a_batch,
)
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings, SolverName

SAMPLING = SamplingSettings(steps=4, guidance=3.0)
STAR = ImageRequest("a small red star", seed=7, count=2, sampling=SAMPLING)
OTHERS = [
    ImageRequest(f"a large blue ring, number {i}", seed=i, count=1, sampling=SAMPLING)
    for i in range(9)
]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return untrained_generator()


def draw(generator: ImageGenerator, *requests: ImageRequest) -> list[NDArray[np.uint8]]:
    return list(draw_with(generator)(requests, lambda *_: [True] * len(requests)))


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(int) - b).max())


def test_the_batch_changes_no_more_than_rounding(generator: ImageGenerator) -> None:
    (alone,) = draw(generator, STAR)
    assert alone.shape == (2, 64, 64, 3)
    among = draw(generator, *OTHERS[:5], STAR, *OTHERS[5:])
    assert difference(alone, among[5]) <= 1
    (another,) = draw(generator, ImageRequest("a large blue ring, number 3", 7, 2, SAMPLING))
    assert difference(alone, another) > 8, "the prompt matters"


def test_picture_i_of_a_request_is_that_of_seed_plus_i(generator: ImageGenerator) -> None:
    (both,) = draw(generator, STAR)
    (second,) = draw(generator, ImageRequest(STAR.prompt, STAR.seed + 1, 1, SAMPLING))
    assert difference(both[1:], second) <= 1
    assert difference(both[:1], second) > 8, "the seed matters"


def test_who_leaves_changes_nothing_for_those_who_stay_and_costs_the_model_nothing(
    generator: ImageGenerator,
) -> None:
    (alone,) = draw(generator, STAR)
    rows: list[int] = []
    generator.denoiser.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    steps: list[int] = []

    def before_step(done: int, _: object = None, /) -> list[bool]:
        steps.append(done)
        return [done < 2, True, done < 1]

    _, staying, _ = draw_with(generator)([OTHERS[0], STAR, OTHERS[1]], before_step)
    assert difference(alone, staying) <= 1
    assert steps == [0, 1, 2, 3, 4]
    assert rows == [8, 6, 4, 4], "with guidance each picture is two rows"


def test_an_interpolation_is_drawn_alone_and_tells_its_steps(generator: ImageGenerator) -> None:
    asked = InterpolationRequest("a small red star", "a large blue ring", 7, 8, 3, SAMPLING)
    assert not share_a_batch(asked, dataclasses.replace(asked))
    steps: list[int] = []

    def before_step(done: int, _: object = None, /) -> list[bool]:
        steps.append(done)
        return [True]

    (frames,) = draw_with(generator)([asked], before_step)
    ours = interpolate(generator, ("a small red star", "a large blue ring"), (7, 8), 3, SAMPLING)
    np.testing.assert_array_equal(frames, ours)
    assert steps == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        draw_with(generator)([asked], left)
    draw_with(generator)([STAR], lambda *_: [True])  # nothing of it stays behind


def test_previews_show_what_the_model_predicts_for_each_request(generator: ImageGenerator) -> None:
    previews: list[list[NDArray[np.uint8]]] = []

    def before_step(_: int, make: MakePreviews | None = None, /) -> list[bool]:
        previews.append(list(make()) if make else [])
        return [True, True]

    images = draw_with(generator)([OTHERS[0], STAR], before_step)
    assert [len(each) for each in previews] == [0, 1 + 1, 1 + 1, 1 + 1, 0], "after each step"
    one_step = dataclasses.replace(SAMPLING, steps=1)
    for number, request in enumerate([OTHERS[0], STAR]):
        (predicted,) = draw(generator, dataclasses.replace(request, sampling=one_step))
        # What one step predicts, decoded in bf16 where the denoiser computes in it.
        assert np.abs(previews[1][number].astype(int) - predicted).mean() < 1
        assert np.abs(previews[1][number].astype(int) - previews[3][number]).mean() > 2
    (unwatched,) = draw(generator, STAR)
    assert difference(images[1], unwatched) <= 1, "looking changes nothing"


def test_previews_of_an_outpainting_are_its_windows(generator: ImageGenerator) -> None:
    pixels = np.full((64, 64, 3), 90, np.uint8)
    shown: list[NDArray[np.uint8]] = []

    def before_step(_: int, make: MakePreviews | None = None, /) -> list[bool]:
        shown.extend(make() if make else [])
        return [True]

    file = InputFile.of("a.png", b"")
    asked = OutpaintingRequest("a star", pixels, file, Border(right=80), 7, SAMPLING)
    (image,) = draw_with(generator)([asked], before_step)
    assert [each.shape for each in shown] == [(1, 64, 144, 3)] * 2
    assert (shown[0][0, :, -20:] == 0).all(), "its second window is not painted yet"
    np.testing.assert_array_equal(shown[1], image)


def test_images_of_one_size_and_negative_prompt_alone_share_a_batch() -> None:
    asked = OTHERS[0]
    assert share_a_batch(asked, OTHERS[1])
    for other in ({"negative": "a ring"}, {"size": (128, 64)}):
        assert not share_a_batch(asked, dataclasses.replace(OTHERS[1], **other))
    wide = dataclasses.replace(asked, size=(128, 64))
    assert not share_a_batch(wide, dataclasses.replace(wide)), "they cost more than an image"
    assert share_a_batch(wide, wide)


def test_size_and_negative_prompt_are_those_of_the_generator(generator: ImageGenerator) -> None:
    asked = ImageRequest("a red star", 7, 1, SAMPLING, "a ring", (128, 64))
    (image,) = draw(generator, asked)
    assert image.shape == (1, 64, 128, 3)
    ours = generator(["a red star"], [7], SAMPLING, "a ring", (128, 64))
    assert difference(image, ours) <= 1
    assert difference(image, generator(["a red star"], [7], SAMPLING, "", (128, 64))) > 8


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun"])
def test_an_edit_is_that_of_the_command_and_reports_its_steps(
    generator: ImageGenerator, solver: SolverName, *, is_masked: bool
) -> None:
    sampling = dataclasses.replace(SAMPLING, steps=8, solver=solver)
    (original,) = draw(generator, dataclasses.replace(STAR, count=1))
    paint = np.zeros((64, 64), np.bool_)
    paint[:32] = True
    image = ImageToEdit(original[0], InputFile.of("a.png", b""), paint if is_masked else None)
    asked = EditingRequest("a large blue ring", image, 0.6, 7, 2, sampling, "a ring")
    assert not share_a_batch(asked, dataclasses.replace(asked))
    steps: list[int] = []

    def before_step(done: int, _: object = None, /) -> list[bool]:
        steps.append(done)
        return [True]

    (edited,) = draw_with(generator)([asked], before_step)
    prompts, how = ["a large blue ring"] * 2, ([7, 8], sampling, "a ring")
    if is_masked:
        ours = inpaint(generator, prompts, original[0], paint, *how, 0.6)
    else:
        ours = image_to_image(generator, prompts, original[0], 0.6, *how)
    np.testing.assert_array_equal(edited, ours)
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[-2:] == [steps[-2], 8]
    assert 6 <= steps[-2] < 8, "the last call but one is near the end"


def left(_: int, __: object = None, /) -> list[bool]:
    raise KeyboardInterrupt


def test_a_picture_is_painted_on_window_by_window(generator: ImageGenerator) -> None:
    (original,) = draw(generator, dataclasses.replace(STAR, count=1))
    file = InputFile.of("a.png", b"")
    asked = OutpaintingRequest(
        "a large blue ring", original[0], file, Border(right=64), 3, SAMPLING
    )
    assert asked.count == asked.steps == 2
    steps: list[int] = []

    def before_step(done: int, _: object = None, /) -> list[bool]:
        steps.append(done)
        return [True]

    (painted,) = draw_with(generator)([asked], before_step)
    assert painted.shape == (1, 64, 128, 3)
    np.testing.assert_array_equal(painted[0, :, :64], original[0])
    assert steps == [0, 1, 2]
