"""Compatibility check of the encodings with the model's architecture."""

from __future__ import annotations

from data_catalog.figures import EncodingsFigures
from data_catalog.storage.manifest import Manifest
from tld_model.config import DenoiserConfig


class ModelMismatch(ValueError):
    """Encodings whose shapes do not fit the model."""

    exit_code = 2


def check_fit(encodings: Manifest, model: DenoiserConfig) -> None:
    """Raise ModelMismatch if the encodings are not what the model takes as input."""
    figures = EncodingsFigures.of(encodings)
    channels, height, width = figures.latent_shape
    by_token = model.text == "tokens"
    if by_token and figures.token_dim is None:
        raise ModelMismatch(
            "model.text is tokens, but the encodings contain only pooled text: set "
            "encode.text=tokens"
        )
    expected = {
        "latent_channels": (model.latent_channels, channels),
        "latent_size": (model.latent_size, height),
        "text_dim": (model.text_dim, figures.token_dim if by_token else figures.text_dim),
    }
    problems = [
        f"  model.{name} is {have}, the encodings have {actual}: set model.{name}={actual}"
        for name, (have, actual) in expected.items()
        if have != actual
    ]
    if height != width:
        problems.append(f"  latents are {height}x{width}; the model needs square ones")
    if problems:
        raise ModelMismatch("the model does not fit the encodings:\n" + "\n".join(problems))
