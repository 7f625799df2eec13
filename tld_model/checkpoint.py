"""A denoiser on disk: weights and config in one safetensors file. Knows nothing of training."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

_CONFIG_KEY = "denoiser_config"


class CheckpointError(ValueError):
    """A file that is not a denoiser, or a damaged one."""


def save_denoiser(path: Path, weights: dict[str, Tensor], config: DenoiserConfig) -> None:
    """Write weights and config to a safetensors file; by rename, so that the file is whole or absent."""
    unfinished = path.with_name(path.name + ".partial")
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(on_cpu, unfinished, metadata={_CONFIG_KEY: config.model_dump_json()})
    os.replace(unfinished, path)


def load_denoiser(path: Path, device: str) -> Denoiser:
    """The denoiser of a safetensors file, in evaluation mode. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if _CONFIG_KEY not in metadata:
        raise CheckpointError(f"{path} holds no denoiser: its metadata lacks {_CONFIG_KEY!r}")

    denoiser = Denoiser(DenoiserConfig.model_validate(json.loads(metadata[_CONFIG_KEY])))
    denoiser.load_state_dict(weights)
    return denoiser.to(device).eval()
