"""From one picture to another in small steps: between two captions, two seeds or both. Knows
nothing of files."""

from __future__ import annotations

import torch
from torch import Tensor

from data_catalog.images import Images
from pipeline.generate.generator import ImageGenerator
from tld_model.config import DEFAULT_SAMPLING, SamplingSettings
from tld_model.sampler import DenoiseFn, noise_levels, sample


@torch.no_grad()
def interpolate(
    generate: ImageGenerator,
    captions: tuple[str, str],
    seeds: tuple[int, int],
    frames: int,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    negative: str = "",
) -> Images:
    """Pictures uint8 [n, h, w, 3] from the first caption and seed to the second, both ends among
    them.

    Noise turns from one end to the other (`slerp`): a mean of two unit noises would have less
    spread than the model expects. Between pooled texts goes a straight line. Token-level ones have
    none, since no token of one belongs to a certain one of the other: of these the guided
    predictions are mixed, at twice the cost.
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
        sample(sampling.solver, denoise, noise, texts, noise_levels(sampling.steps))
    )


def slerp(start: Tensor, end: Tensor, places: Tensor) -> Tensor:
    """Points [n, …] on the great circle from start [1, …] to end [1, …], at places [n] from 0 to 1
    (Shoemake, 1985)."""
    cosine = (start * end).sum() / (start.norm() * end.norm())
    angle = cosine.clamp(-1, 1).acos()
    t = places.view(-1, *[1] * (start.dim() - 1))
    if (
        angle.sin() < 1e-4
    ):  # one direction, or opposite ones, between which no circle is the shortest
        return torch.lerp(start, end, t)

    between: Tensor = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return between


def mixed(denoise: DenoiseFn, text: Tensor, places: Tensor) -> DenoiseFn:
    """The predictions for a row's own text, mixed with those for another text [1, t] or [1, l, t]
    by the places [n]."""
    share = places.view(-1, 1, 1, 1)

    def denoise_mixed(noisy: Tensor, sigma: Tensor, own: Tensor) -> Tensor:
        return torch.lerp(
            denoise(noisy, sigma, own), denoise(noisy, sigma, text.expand_as(own)), share
        )

    return denoise_mixed
