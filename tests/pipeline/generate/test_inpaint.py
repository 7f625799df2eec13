from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_to_image import InputImageError
from pipeline.generate.inpaint import inpaint
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings
from tld_model.encoders.clip import load_text_encoder
from tld_model.encoders.vae import load_image_codec

SAMPLING = SamplingSettings(steps=2)
BOTH = pytest.mark.parametrize("inpainting", [False, True])
CAPTIONS = ["a small red star", "a large blue circle"]


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def square(top: int = 10, left: int = 20, edge: int = 24) -> NDArray[np.bool_]:
    paint = np.zeros((64, 64), np.bool_)
    paint[top : top + edge, left : left + edge] = True
    return paint


@BOTH
def test_only_what_is_to_be_painted_changes_and_the_seed_says_how(inpainting: bool) -> None:
    generate, paint, given = untrained_generator(inpainting=inpainting), square(), picture()
    painted = inpaint(generate, CAPTIONS, given, paint, [3, 4], SAMPLING)
    assert painted.shape == (2, 64, 64, 3)
    assert painted.dtype == np.uint8
    for one in painted:
        np.testing.assert_array_equal(one[~paint], given[~paint])
        assert (one[paint] != given[paint]).mean() > 0.5
    assert (painted[0] != painted[1]).any()
    np.testing.assert_array_equal(
        painted, inpaint(generate, CAPTIONS, given, paint, [3, 4], SAMPLING)
    )
    assert (inpaint(generate, CAPTIONS[:1], given, paint, [4], SAMPLING)[0] != painted[0]).any()
    alone = inpaint(generate, CAPTIONS[1:], given, paint, [4], SAMPLING)[0]
    assert np.abs(alone.astype(int) - painted[1]).max() <= 1, "whatever shares its batch"


@BOTH
def test_what_is_painted_follows_from_what_is_known_and_not_from_what_is_under_the_paint(
    inpainting: bool,
) -> None:
    generate, paint = untrained_generator(inpainting=inpainting), np.zeros((64, 64), np.bool_)
    paint[:, :32] = True
    given, other_known, other_paint = picture(), picture(), picture()
    other_known[:, 40:] = 255 - other_known[:, 40:]
    other_paint[:, :32] = 255 - other_paint[:, :32]
    pictures = (given, other_known, other_paint)
    usual, elsewhere, beneath = (
        inpaint(generate, ["a star"], one, paint, [1], SAMPLING)[0] for one in pictures
    )
    assert (usual[:, :32] != elsewhere[:, :32]).any()
    np.testing.assert_array_equal(usual, beneath)
    weak = [
        inpaint(generate, ["a star"], one, paint, [1], SAMPLING, strength=0.5)[0]
        for one in (given, other_paint)
    ]
    assert (weak[0][:, :32] != weak[1][:, :32]).any(), "below strength 1 painting starts from it"


def test_an_inpainting_model_is_told_of_the_known_part_and_any_other_is_held_to_it() -> None:
    told = untrained_generator(inpainting=True)
    heard = inpaint(told, ["a star"], picture(), square(), [1], SAMPLING)
    torch.nn.init.zeros_(told.denoiser.patchify_known.weight)
    deaf = inpaint(told, ["a star"], picture(), square(), [1], SAMPLING)
    assert (heard != deaf).any()
    plain = untrained_generator()
    plain.denoiser.load_state_dict(told.denoiser.state_dict(), strict=False)
    held = inpaint(plain, ["a star"], picture(), square(), [1], SAMPLING)
    assert (held != deaf).any()


def test_a_perfect_denoiser_paints_what_was_there() -> None:
    given = picture() // 8 + np.linspace(0, 200, 64, dtype=np.uint8)[:, None, None]
    generate, paint = untrained_generator(), square(16, 16, 32)
    truth = generate.encode(given[None])

    class Perfect(torch.nn.Module):
        config = generate.denoiser.config

        def forward(self, noisy: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return truth.expand_as(noisy)

    encoders = load_text_encoder("shapes-clip", "cpu"), load_image_codec("shapes-vae", "cpu")
    perfect = ImageGenerator(Perfect(), *encoders, "cpu")  # type: ignore[arg-type]  # stands for a Denoiser
    painted = inpaint(perfect, ["a star"], given, paint, [1], SAMPLING)[0]
    off = np.abs(painted.astype(int) - generate.decode(truth)[0])[paint]
    assert off.mean() < 5, (
        "beside what it knows, which the encoder saw without what is under the paint"
    )


def test_a_picture_or_a_mask_or_a_strength_that_does_not_fit_is_refused() -> None:
    generate, paint = untrained_generator(), square()
    with pytest.raises(InputImageError, match=r"takes RGB images \[64, 64, 3\], got \[64, 32, 3\]"):
        inpaint(generate, ["a star"], picture()[:, :32], paint)
    with pytest.raises(InputImageError, match=r"the image's size \[64, 64\], got \[32, 64\]"):
        inpaint(generate, ["a star"], picture(), paint[:32])
    with pytest.raises(InputImageError, match=r"above 0 and at most 1, got 1\.5"):
        inpaint(generate, ["a star"], picture(), paint, strength=1.5)


@pytest.mark.parametrize(("inpainting", "calls"), [(False, 10 + 7), (True, 10)])
def test_a_model_that_is_only_held_paints_again_from_level_0_7(
    inpainting: bool, calls: int
) -> None:
    generate, levels = untrained_generator(inpainting=inpainting), list[float]()
    generate.denoiser.register_forward_pre_hook(
        lambda _, inputs: levels.append(float(inputs[1][0]))
    )
    inpaint(generate, ["a star"], picture(), square(), [1], SamplingSettings(steps=10))
    assert len(levels) == calls
    assert levels[10:11] == ([] if inpainting else [pytest.approx(0.7)])
