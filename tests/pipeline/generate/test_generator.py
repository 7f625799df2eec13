"""A picture depends on what it is asked for, and on nothing else; sizes; the Python of the docs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.generate.generator import ImageGenerator, load_generator
from pipeline.generate.image_size import SizeError
from tests.support.untrained import untrained_generator
from tests.support.vaes import SHAPES, VAES, save_vae
from tld_model.checkpoint import save_denoiser
from tld_model.config import DenoiserConfig, SamplingSettings, SolverName, TextForm
from tld_model.denoiser import Denoiser
from tld_model.encoders.text_encoder import load_text_encoder

PROMPTS = ["a star", "a large green circle in the bottom right on a white background", "红"]
SAMPLING = SamplingSettings(steps=3, guidance=3.0)


@pytest.mark.parametrize("class_name", VAES)
def test_a_stored_model_draws_and_edits_with_each_vae(class_name: str, tmp_path: Path) -> None:
    vae, (downscale, channels) = save_vae(class_name, tmp_path / "vae"), SHAPES[class_name]
    generate = untrained_generator(latent_channels=channels, latent_size=64 // downscale)
    denoiser = generate.denoiser
    save_denoiser(tmp_path / "denoiser.safetensors", denoiser.state_dict(), denoiser.config)
    loaded = load_generator(tmp_path / "denoiser.safetensors", vae, "shapes-clip", "cpu")
    images = loaded(PROMPTS[:1], [1], SAMPLING, size=(96, 64))
    assert images.shape == (1, 64, 96, 3)
    assert loaded.encode(images).shape == (1, channels, 64 // downscale, 96 // downscale)
    with pytest.raises(SizeError):
        loaded(PROMPTS[:1], [1], SAMPLING, size=(64 + downscale, 64))


def generator(form: TextForm) -> ImageGenerator:
    generate = untrained_generator()
    if form == "pooled":
        return generate
    text_encoder = load_text_encoder("shapes-clip", "cpu", "tokens")
    torch.manual_seed(0)
    config = DenoiserConfig(
        latent_size=8, text="tokens", text_dim=text_encoder.dim, width=64, layers=2
    )
    return replace(generate, denoiser=Denoiser(config).eval(), text_encoder=text_encoder)


@pytest.mark.parametrize("form", ["pooled", "tokens"])
@pytest.mark.parametrize("together", [1, 4])
def test_a_picture_does_not_depend_on_the_others_to_the_bit(
    form: TextForm, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.generate.generator._BATCH_ON_CPU", together)
    generate = generator(form)
    alone = np.concatenate(
        [generate([prompt], [seed], SAMPLING) for seed, prompt in enumerate(PROMPTS)]
    )
    assert len(np.unique(alone.reshape(3, -1), axis=0)) == 3
    np.testing.assert_array_equal(generate(PROMPTS, None, SAMPLING), alone)
    backwards = generate(PROMPTS[::-1] * 2, [2, 1, 0] * 2, SAMPLING)
    np.testing.assert_array_equal(backwards, np.tile(alone[::-1], (2, 1, 1, 1)))


@pytest.mark.parametrize(("solver", "calls_of_each"), [("dpmpp_2m", 3), ("heun", 5)])
def test_the_calls_of_the_model_are_counted(
    solver: SolverName, calls_of_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.generate.generator._BATCH_ON_CPU", 2)
    sampling, calls = SamplingSettings(3, 2.0, solver), []
    parts = list(
        untrained_generator().draw(PROMPTS, None, sampling, after_call=lambda: calls.append(1))
    )
    assert [len(part) for part in parts] == [2, 1]
    assert sampling.model_calls == calls_of_each
    assert len(calls) == 2 * calls_of_each


def test_pictures_wider_higher_and_larger_than_the_training() -> None:
    generate = untrained_generator()
    for width, height in ((96, 64), (64, 128), (128, 128)):
        drawn = generate(PROMPTS[:1], [1], SAMPLING, size=(width, height))
        assert drawn.shape == (1, height, width, 3)
    np.testing.assert_array_equal(
        generate(PROMPTS, None, SAMPLING, size=(64, 64)), generate(PROMPTS, None, SAMPLING)
    )


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (
            (100, 64),
            "100x64: this model needs multiples of 16 pixels; nearest are 96x64 and 112x64",
        ),
        ((8, 8), "nearest are 16x16 and 16x16"),
        ((0, 64), "nearest are 16x64 and 16x64"),
        (
            (2048, 2064),
            "is 16512 tokens of this model; the maximum is 16384, for example 2048x2048",
        ),
    ],
)
def test_sizes_that_cannot_be_drawn(size: tuple[int, int], says: str) -> None:
    with pytest.raises(SizeError, match=re.escape(says)):
        untrained_generator()(["a star"], size=size)


def test_guidance_leads_away_from_a_negative_prompt() -> None:
    generate = untrained_generator()
    plain, away = (
        generate(["a star"], [1], SAMPLING, negative=negative) for negative in ("", "a circle")
    )
    assert (plain != away).any()


def test_seeds_are_as_many_as_captions() -> None:
    with pytest.raises(ValueError, match="3 captions need 3 seeds, got 2"):
        untrained_generator()(PROMPTS, [1, 2])
