from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.inpaint import InpaintingError, inpaint
from pipeline.sample import Generator
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.encoders import load_image_codec, load_text_encoder
from tld_model.sampling import Sampling

SAMPLING = Sampling(steps=2)
MODEL = DenoiserConfig(latent_size=8, text_dim=64, width=64, layers=1, noise_embed_dim=16, inpainting=True)


def generator_of(config: DenoiserConfig) -> Generator:
    torch.manual_seed(0)
    encoders = load_text_encoder("shapes-clip", "cpu"), load_image_codec("shapes-vae", "cpu")
    return Generator(Denoiser(config).eval(), *encoders, "cpu")


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_only_what_is_to_be_painted_changes_and_the_seed_says_how() -> None:
    generate, paint = generator_of(MODEL), np.zeros((64, 64), np.bool_)
    paint[10:30, 20:50] = True
    given = picture()
    painted = inpaint(generate, ["a small red star", "a large blue circle"], given, paint, [3, 4], SAMPLING)
    assert painted.shape == (2, 64, 64, 3)
    assert painted.dtype == np.uint8
    for one in painted:
        np.testing.assert_array_equal(one[~paint], given[~paint])
        assert (one[paint] != given[paint]).mean() > 0.5
    assert (painted[0] != painted[1]).any()
    again = inpaint(generate, ["a small red star", "a large blue circle"], given, paint, [3, 4], SAMPLING)
    np.testing.assert_array_equal(painted, again)
    assert (inpaint(generate, ["a small red star"], given, paint, [4], SAMPLING)[0] != painted[0]).any()


def test_the_known_part_reaches_the_model() -> None:
    generate, paint = generator_of(MODEL), np.zeros((64, 64), np.bool_)
    torch.nn.init.normal_(generate.denoiser.patchify_known.weight)
    paint[:, :32] = True
    one, other = picture(), picture()
    other[:, 40:] = 255 - other[:, 40:]
    ends = [inpaint(generate, ["a star"], given, paint, None, SAMPLING)[0, :, :32] for given in (one, other)]
    assert (ends[0] != ends[1]).any(), "what is painted follows from what is known"


def test_a_model_or_a_picture_that_does_not_fit_is_refused() -> None:
    paint = np.ones((64, 64), np.bool_)
    with pytest.raises(InpaintingError, match="train one with model"):
        inpaint(generator_of(MODEL.model_copy(update={"inpainting": False})), ["a star"], picture(), paint)
    with pytest.raises(
        InpaintingError, match=r"RGB pictures \[64, 64, 3\] with a mask \[64, 64\], got \[64, 64, 3\] and"
    ):
        inpaint(generator_of(MODEL), ["a star"], picture(), paint[:32])
