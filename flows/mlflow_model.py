"""How MLflow loads a denoiser: mlflow.pyfunc.load_model("models:/…").predict(["a small red star …"])."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sample import Generator, load_generator
from pipeline.train_events import MODEL_FILE
from tld_model.sampling import Sampling


@dataclass(frozen=True, slots=True)
class TextToImage:
    """A denoiser with its encoders, as MLflow calls it."""

    generator: Generator

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> NDArray[np.uint8]:
        """Pictures uint8 [n, h, w, 3] of n captions: a list, or the first column of a data frame.
        `params` may give steps, guidance and seed; picture i has the noise of seed + i."""
        captions: Sequence[str] = (
            list(model_input.iloc[:, 0]) if hasattr(model_input, "iloc") else [str(caption) for caption in model_input]
        )
        given = dict(params or {})
        seed = int(given.pop("seed", 0))
        return self.generator(captions, range(seed, seed + len(captions)), Sampling(**given))


def _load_pyfunc(path: str) -> TextToImage:
    """Called by MLflow with the folder of the model's files."""
    folder = Path(path)
    encoders = json.loads((folder / "encoders.json").read_text())
    return TextToImage(load_generator(folder / MODEL_FILE, encoders["vae"], encoders["clip"], "auto"))
