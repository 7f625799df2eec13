"""Run the training stage by itself, with a tracker of your own: no Prefect, no MLflow, the losses
in a csv file.

In the checkout of a finished `make demo`:

    python -m examples.custom_tracker data/02_encodings/*/ my-model/ --steps 200

A tracker is any object with these seven members. The same call again resumes from the last
checkpoint. What it makes is a denoiser.safetensors like any other; it is no output of a workspace,
since no manifest is written.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_catalog.figures import EncodingsFigures
from data_catalog.storage.manifest import read_manifest
from pipeline.config.train import TrainConfig
from pipeline.train.stage import train
from tld_model.config import DenoiserConfig


@dataclass(frozen=True)
class CsvTracker:
    """Appends every metric to a csv file: step, name, value."""

    path: Path
    run_id: str = ""  # nothing else records this run

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows((step, name, value) for name, value in values.items())

    def artifact(self, path: Path, folder: str = "") -> None:
        print(f"made {path}" + (f" ({folder})" if folder else ""))

    def image(self, path: Path, name: str, step: int) -> None:
        print(f"made {path} ({name} of step {step})")

    def progress(self, done: int, total: int, note: str = "") -> None:
        print(f"{done}/{total} {note}")

    def note(self, text: str) -> None:
        print(text)

    def warning(self, text: str) -> None:
        print(f"warning: {text}")


def main(words: Sequence[str] | None = None) -> Path:
    """Train a small denoiser that fits the encodings; returns the path of its file."""
    parser = argparse.ArgumentParser(
        description="Train a small denoiser, with the losses in a csv file."
    )
    parser.add_argument("encodings", type=Path, help="the folder of an encode output")
    parser.add_argument(
        "out", type=Path, help="a folder for the model, its checkpoints and losses.csv"
    )
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args(words)

    encodings = read_manifest(given.encodings)
    if encodings is None:
        parser.error(f"{given.encodings} holds no finished encodings")
    figures = EncodingsFigures.of(encodings)
    channels, size, _ = figures.latent_shape
    model = DenoiserConfig(
        latent_size=size,
        latent_channels=channels,
        text_dim=figures.text_dim,
        width=128,
        layers=2,
    )
    config = TrainConfig(
        steps=given.steps, batch_size=32, lr=2e-3, warmup_steps=given.steps // 10, log_every=10
    )
    given.out.mkdir(parents=True, exist_ok=True)

    output = train(encodings, config, model, given.out, CsvTracker(given.out / "losses.csv"))
    print(f"held-out loss {output.figures['held_out_loss']:.4f}")
    return Path(given.out / "denoiser.safetensors")


if __name__ == "__main__":
    main()
