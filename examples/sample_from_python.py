"""Sample a trained model from Python, one PNG for each prompt.

In the checkout of a finished `make demo`:

    python -m examples.sample_from_python data/03_model/*/denoiser.safetensors \\
        "a small red star in the top left on a blue background" \\
        "a large green circle in the center on a white background" --out samples/

The encoders are those of the demo; `--vae` and `--clip` name others. The first prompt gets the
noise of the seed, the next one that of seed + 1. The same command gives the same images, bit for
bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.generate.generator import load_generator
from tld_model.config import SamplingSettings


def main(words: Sequence[str] | None = None) -> list[Path]:
    """Write the images; returns their paths."""
    parser = argparse.ArgumentParser(description="Sample a trained model, one PNG for each prompt.")
    parser.add_argument("model", type=Path, help="a denoiser.safetensors")
    parser.add_argument("prompts", nargs="+", help="what the images show")
    parser.add_argument("--vae", default="shapes-vae")
    parser.add_argument("--clip", default="shapes-clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    given = parser.parse_args(words)

    generate = load_generator(given.model, given.vae, given.clip, device="auto")
    seeds = range(given.seed, given.seed + len(given.prompts))
    images = generate(
        given.prompts, seeds, SamplingSettings(steps=given.steps, guidance=given.guidance)
    )

    given.out.mkdir(parents=True, exist_ok=True)
    paths = [given.out / f"{number:04}-seed{seed}.png" for number, seed in enumerate(seeds)]
    for image, path in zip(images, paths, strict=True):  # each uint8 [height, width, 3]
        Image.fromarray(image).save(path)
        print(path)
    return paths


if __name__ == "__main__":
    main()
