"""Sample a trained model with a solver of your own: here the midpoint method.

In the checkout of a finished `make demo`:

    python -m examples.custom_sampler data/03_model/*/denoiser.safetensors \\
        "a small red star in the top left on a blue background"

A solver gets `predict(noisy latents, noise level) -> clean latents`, unit noise, and falling noise
levels. It follows dx/ds = (x - predict(x, s)) / s from the first level to the last; the prediction
there is the result. To make a solver a setting of the project, add it to SOLVERS in
tld_model/sampler.py and to SolverName.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.generate.generator import ImageGenerator, load_generator
from tld_model.config import SamplingSettings
from tld_model.sampler import PredictFn, Solver, noise_levels


def solve_midpoint(predict: PredictFn, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """The midpoint method: a step uses the slope in its middle, which half a step of Euler's method
    finds. Of second order; it asks the model twice a step."""
    x = noise
    for level, following in pairwise(levels):
        middle = (level + following) / 2
        halfway = x + (middle - level) * (x - predict(x, level)) / level
        x = x + (following - level) * (halfway - predict(halfway, middle)) / middle
    return predict(x, levels[-1])


@torch.no_grad()
def sample_with(
    solver: Solver,
    generate: ImageGenerator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingSettings,
) -> NDArray[np.uint8]:
    """Images uint8 [n, height, width, 3] by any solver; of `sampling` the steps and the guidance
    count."""
    denoise, text = generate.guided(sampling), generate.text(prompts)

    def predict(noisy: Tensor, level: float) -> Tensor:
        return denoise(noisy, torch.full((len(noisy),), level, device=noisy.device), text)

    return generate.decode(solver(predict, generate.noise(seeds), noise_levels(sampling.steps)))


def main(words: Sequence[str] | None = None) -> Path:
    """Write one image, by 10 steps of the midpoint method; returns its path."""
    parser = argparse.ArgumentParser(description="Sample a trained model by the midpoint method.")
    parser.add_argument("model", type=Path, help="a denoiser.safetensors")
    parser.add_argument("prompt", help="what the image shows")
    parser.add_argument("--vae", default="shapes-vae")
    parser.add_argument("--clip", default="shapes-clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("midpoint.png"))
    given = parser.parse_args(words)

    generate = load_generator(given.model, given.vae, given.clip, device="auto")
    images = sample_with(
        solve_midpoint,
        generate,
        [given.prompt],
        [given.seed],
        SamplingSettings(steps=10, guidance=2.0),
    )
    Image.fromarray(images[0]).save(given.out)
    print(given.out)
    return Path(given.out)


if __name__ == "__main__":
    main()
