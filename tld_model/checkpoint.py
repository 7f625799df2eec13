"""A denoiser on disk: weights and config in one safetensors file. Knows nothing of training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.encoder_names import encoder_identity

# One entry of JSON: safetensors writes several in an order of chance, and equal models would differ in their bytes.
_ENTRY = "denoiser"


class CheckpointError(ValueError):
    """A file that is not a denoiser, or a damaged one."""

    exit_code = 2


def save_denoiser(
    path: Path,
    weights: Mapping[str, Tensor],
    config: DenoiserConfig,
    encoders: Mapping[str, str] | None = None,
    latent_scaling: float | None = None,
) -> None:
    """Write weights, config and the encoders it was trained on (vae, clip, and vae_identity, clip_identity) to a
    safetensors file; by rename, so that the file is whole or absent. Equal models give equal bytes.

    `latent_scaling` is told of a model that was trained on latents scaled otherwise than ours, which are
    (raw - shift) * factor of the VAE: raw * latent_scaling.
    """
    unfinished = path.with_name(path.name + ".partial")
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    told: dict[str, Any] = {"config": config.model_dump(mode="json"), "encoders": dict(encoders or {})}
    if latent_scaling is not None:
        told["latent_scaling"] = latent_scaling
    save_file(on_cpu, unfinished, metadata={_ENTRY: json.dumps(told, sort_keys=True)})
    os.replace(unfinished, path)


def load_denoiser(path: Path, device: str) -> Denoiser:
    """The denoiser of a safetensors file, in evaluation mode. Raises CheckpointError."""
    denoiser = Denoiser(read_config(path))
    denoiser.load_state_dict(load_file(path))
    return denoiser.to(device).eval()


def read_config(path: Path) -> DenoiserConfig:
    """The architecture of a denoiser on disk, without its weights. Raises CheckpointError."""
    try:
        return DenoiserConfig.model_validate(_told(path)["config"])
    except ValidationError as error:
        raise CheckpointError(f"{path} was written by another version of this project: {error}") from error


def read_latent_scaling(path: Path) -> float | None:
    """What raw latents are multiplied by for this denoiser, or None where they are scaled as its VAE's config says.
    Raises CheckpointError."""
    scaling: float | None = _told(path).get("latent_scaling")
    return scaling


def _told(path: Path) -> dict[str, Any]:
    """What a denoiser's file says beside its weights. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if _ENTRY not in metadata:
        raise CheckpointError(f"{path} holds no denoiser: its metadata lacks {_ENTRY!r}")
    told: dict[str, Any] = json.loads(metadata[_ENTRY])
    return told


def check_encoders(path: Path, vae: str, clip: str) -> None:
    """Raise CheckpointError where a denoiser was trained on encodings of other encoders than these. A file that
    does not say which, as an imported one, is believed."""
    trained_on: dict[str, str] = _told(path).get("encoders", {})
    problems = [
        f"  it was trained on encodings by {what} {trained_on[kind]!r}, and these are by {given!r}"
        + (", of other content" if trained_on[kind] == given else "")
        for kind, what, given in (("vae", "VAE", vae), ("clip", "CLIP", clip))
        if f"{kind}_identity" in trained_on and trained_on[f"{kind}_identity"] != encoder_identity(given)
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit these encoders:\n" + "\n".join(problems) + "\nUse those, or train on these encodings."
        )
