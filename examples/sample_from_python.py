"""Sample a trained model from Python, one PNG for each prompt.

In the checkout of a finished `make demo`:

    python -m examples.sample_from_python conf/tiny.yaml \\
        "a small red star in the top left on a blue background" \\
        "a large green circle in the center on a white background" --out samples/

The first prompt gets the noise of the seed, the next one that of seed + 1. The same command gives
the same images, bit for bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.api import load_model


def main(words: Sequence[str] | None = None) -> list[Path]:
    """Write the images; returns their paths."""
    parser = argparse.ArgumentParser(description="Sample a trained model, one PNG for each prompt.")
    parser.add_argument("config", help="the config of a run that has trained a model")
    parser.add_argument("prompts", nargs="+", help="what the images show")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    arguments = parser.parse_args(words)

    model = load_model(arguments.config)
    images = model(arguments.prompts, arguments.seed)

    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        path = arguments.out / f"{number:04}-seed{arguments.seed + number}.png"
        image.save(path)
        print(path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    main()
