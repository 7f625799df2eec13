from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.compute.inference import inference_on
from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import InputImageError
from pipeline.generate.inpaint import inpaint
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec

SAMPLING = SamplingSettings(steps=2)
BOTH = pytest.mark.parametrize("inpainting", [False, True])
CAPTIONS = ["a small red star", "a large blue circle"]


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def square(top: int = 10, left: int = 20, edge: int = 24) -> NDArray[np.bool_]:
    paint = np.zeros((64, 64), np.bool_)
    paint[top : top + edge, left : left + edge] = True
    return paint


@BOTH
def test_only_what_is_to_be_painted_changes_and_the_seed_says_how(inpainting: bool) -> None:
    generate, paint, original = untrained_generator(inpainting=inpainting), square(), image()
    painted = inpaint(generate, CAPTIONS, original, paint, [3, 4], SAMPLING)
    assert painted.shape == (2, 64, 64, 3)
    assert painted.dtype == np.uint8
    for one in painted:
        np.testing.assert_array_equal(one[~paint], original[~paint])
        assert (one[paint] != original[paint]).mean() > 0.5
    assert (painted[0] != painted[1]).any()
    np.testing.assert_array_equal(
        painted, inpaint(generate, CAPTIONS, original, paint, [3, 4], SAMPLING)
    )
    assert (inpaint(generate, CAPTIONS[:1], original, paint, [4], SAMPLING)[0] != painted[0]).any()
    alone = inpaint(generate, CAPTIONS[1:], original, paint, [4], SAMPLING)[0]
    assert np.abs(alone.astype(int) - painted[1]).max() <= 1, "whatever shares its batch"


@BOTH
def test_what_is_painted_follows_from_what_is_known_and_not_from_what_is_under_the_paint(
    inpainting: bool,
) -> None:
    generate, paint = untrained_generator(inpainting=inpainting), np.zeros((64, 64), np.bool_)
    paint[:, :32] = True
    original, other_known, other_paint = image(), image(), image()
    other_known[:, 40:] = 255 - other_known[:, 40:]
    other_paint[:, :32] = 255 - other_paint[:, :32]
    images = (original, other_known, other_paint)
    reference, elsewhere, beneath = (
        inpaint(generate, ["a star"], one, paint, [1], SAMPLING)[0] for one in images
    )
    assert (reference[:, :32] != elsewhere[:, :32]).any()
    np.testing.assert_array_equal(reference, beneath)
    weak = [
        inpaint(generate, ["a star"], one, paint, [1], SAMPLING, strength=0.5)[0]
        for one in (original, other_paint)
    ]
    assert (weak[0][:, :32] != weak[1][:, :32]).any(), "below strength 1 painting starts from it"


def test_an_inpainting_model_is_told_of_the_known_part_and_any_other_is_held_to_it() -> None:
    inpainting = untrained_generator(inpainting=True)
    with_known = inpaint(inpainting, ["a star"], image(), square(), [1], SAMPLING)
    torch.nn.init.zeros_(inpainting.denoiser.patchify_known.weight)
    without_known = inpaint(inpainting, ["a star"], image(), square(), [1], SAMPLING)
    assert (with_known != without_known).any()
    plain = untrained_generator()
    plain.denoiser.load_state_dict(inpainting.denoiser.state_dict(), strict=False)
    constrained = inpaint(plain, ["a star"], image(), square(), [1], SAMPLING)
    assert (constrained != without_known).any()


def test_a_perfect_denoiser_paints_what_was_there() -> None:
    original = image() // 8 + np.linspace(0, 200, 64, dtype=np.uint8)[:, None, None]
    generate, paint = untrained_generator(), square(16, 16, 32)
    truth = generate.encode(original[None])

    class Perfect(torch.nn.Module):
        config = generate.denoiser.config

        def forward(self, noisy: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return truth.expand_as(noisy)

    encoders = load_text_encoder("shapes-clip", "cpu"), load_image_codec("shapes-vae", "cpu")
    perfect = ImageGenerator(Perfect(), *encoders, inference_on("cpu"))  # type: ignore[arg-type]  # stands for a Denoiser
    painted = inpaint(perfect, ["a star"], original, paint, [1], SAMPLING)[0]
    off = np.abs(painted.astype(int) - generate.decode(truth)[0])[paint]
    assert off.mean() < 5, (
        "beside what it knows, which the encoder saw without what is under the paint"
    )


def test_a_picture_or_a_mask_or_a_strength_that_does_not_fit_is_refused() -> None:
    generate, paint = untrained_generator(), square()
    with pytest.raises(InputImageError, match=r"takes RGB images \[64, 64, 3\], got \[64, 32, 3\]"):
        inpaint(generate, ["a star"], image()[:, :32], paint)
    with pytest.raises(InputImageError, match=r"the image's size \[64, 64\], got \[32, 64\]"):
        inpaint(generate, ["a star"], image(), paint[:32])
    with pytest.raises(InputImageError, match=r"above 0 and at most 1, got 1\.5"):
        inpaint(generate, ["a star"], image(), paint, strength=1.5)


@pytest.mark.parametrize(("inpainting", "calls"), [(False, 10 + 7), (True, 10)])
def test_a_model_that_is_only_held_paints_again_from_level_0_7(
    inpainting: bool, calls: int
) -> None:
    generate, levels = untrained_generator(inpainting=inpainting), list[float]()
    generate.denoiser.register_forward_pre_hook(
        lambda _, inputs: levels.append(float(inputs[1][0]))
    )
    inpaint(generate, ["a star"], image(), square(), [1], SamplingSettings(steps=10))
    assert len(levels) == calls
    assert levels[10:11] == ([] if inpainting else [pytest.approx(0.7)])
