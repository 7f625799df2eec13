"""Interpolation between two captions, two seeds or both."""

from __future__ import annotations

import torch
from torch import Tensor

from data_catalog.images import Images
from pipeline.generate.generator import ImageGenerator
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings
from tld_model.sampler import DenoiseFn, noise_levels


@torch.no_grad()
def interpolate(
    generate: ImageGenerator,
    captions: tuple[str, str],
    seeds: tuple[int, int],
    frames: int,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
) -> Images:
    """Frames uint8 [n, h, w, 3] from the first caption and seed to the second, both included.

    Noise is interpolated on a great circle (`slerp`), because the mean of two unit noises would
    have less spread than the model expects. Pooled texts are interpolated linearly. Token-level
    texts cannot be, since no token of one corresponds to a particular token of the other: their
    guided predictions are mixed instead, at twice the cost.
    """
    if frames < 2:
        raise ValueError(f"an interpolation has at least 2 frames, got {frames}")
    places = torch.linspace(0, 1, frames).to(generate.device)
    noise = slerp(generate.noise(seeds[:1]), generate.noise(seeds[1:]), places)
    denoise = generate.guided(sampling, negative)
    text = generate.text(captions)
    if generate.denoiser.config.text == "pooled":
        texts = torch.lerp(text[:1], text[1:], places[:, None])
    else:
        texts = text[:1].expand(frames, *text.shape[1:])
        denoise = mixed(denoise, text[1:], places) if captions[0] != captions[1] else denoise
    return generate.decode(
        generate.inference.sample(
            sampling.solver, denoise, noise, texts, noise_levels(sampling.steps)
        )
    )


def slerp(start: Tensor, end: Tensor, places: Tensor) -> Tensor:
    """Points [n, …] on the great circle from start [1, …] to end [1, …] (Shoemake, 1985).

    `places` [n] run from 0 to 1.
    """
    cosine = (start * end).sum() / (start.norm() * end.norm())
    angle = cosine.clamp(-1, 1).acos()
    t = places.view(-1, *[1] * (start.dim() - 1))
    if angle.sin() < 1e-4:  # equal or opposite directions, which no unique great circle joins
        return torch.lerp(start, end, t)

    between: Tensor = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return between


def mixed(denoise: DenoiseFn, text: Tensor, places: Tensor) -> DenoiseFn:
    """A denoiser that mixes the predictions for a row's own text with those for another text.

    The other text is [1, t] or [1, l, t]; `places` [n] are its weights, from 0 to 1.
    """
    share = places.view(-1, 1, 1, 1)

    def denoise_mixed(noisy: Tensor, sigma: Tensor, own: Tensor) -> Tensor:
        return torch.lerp(
            denoise(noisy, sigma, own), denoise(noisy, sigma, text.expand_as(own)), share
        )

    return denoise_mixed
