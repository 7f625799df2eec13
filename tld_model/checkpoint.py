"""Checkpoint files of the denoiser: weights and config in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tld_model.config import DenoiserConfig, SamplingSettings, TextSettings
from tld_model.denoiser import Denoiser
from tld_model.encoders.names import encoder_identity
from tld_model.weights_file import WeightsHeader, read_weights_header

# All metadata is one JSON entry, because safetensors writes several entries in random order, and
# equal models would differ in their bytes.
_ENTRY = "denoiser"


class CheckpointError(ValueError):
    """A file is not a denoiser, or is damaged."""

    exit_code = 2


def save_denoiser(
    path: Path,
    weights: Mapping[str, Tensor],
    config: DenoiserConfig,
    encoders: Mapping[str, Any] | None = None,
    *,
    latent_scaling: float | None = None,
    sampling: SamplingSettings | None = None,
) -> None:
    """Write weights, config and the encoders that it was trained with (vae, clip, vae_identity,
    clip_identity; and `text` of a text encoder other than CLIP's text tower as it is, with its
    name, identity, layer, tokens and template) to a safetensors file. Equal models give equal
    bytes.

    `latent_scaling` is given for a model that was trained on raw * latent_scaling instead of our
    scaled latents, which are (raw - shift) * factor, as the VAE's config says. `sampling` is given
    for a distilled model, which samples in no other way.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    description: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "encoders": dict(encoders or {}),
    }
    if latent_scaling is not None:
        description["latent_scaling"] = latent_scaling
    if sampling is not None:
        description["sampling"] = asdict(sampling)
    save_file(on_cpu, path, metadata={_ENTRY: json.dumps(description, sort_keys=True)})


class TrainedTextEncoder(BaseModel):
    """The text encoder of a denoiser, with what determines its embeddings beside the model."""

    name: str
    identity: str
    layer: int | None = Field(None, ge=1)
    tokens: int = Field(ge=1, le=65_536)
    template: str = Field("{}", max_length=10_000)


class TrainedEncoders(BaseModel):
    """The encoders that a denoiser was trained with, as far as they are known."""

    vae: str | None = None
    vae_identity: str | None = None
    clip: str | None = None
    clip_identity: str | None = None
    text: TrainedTextEncoder | None = None

    @property
    def text_settings(self) -> TextSettings:
        """What was chosen of the text encoder."""
        text = self.text
        return TextSettings(text.layer, text.tokens, text.template) if text else TextSettings()

    def differences(self, vae: str, text_model: str) -> list[str]:
        """How other encoders, a VAE and a model that encodes captions, differ from these. Encoders
        that are not known do not differ."""
        text = ("CLIP", self.clip, self.clip_identity, text_model)
        if self.text:
            text = ("text encoder", self.text.name, self.text.identity, text_model)
        return [
            f"it was trained on encodings by {what} {name!r}, but these are by "
            f"{requested!r}" + (", with other weights" if name == requested else "")
            for what, name, identity, requested in (("VAE", self.vae, self.vae_identity, vae), text)
            if identity is not None and identity != encoder_identity(requested)
        ]


class _Description(BaseModel):
    """The metadata of a denoiser's file."""

    config: DenoiserConfig
    encoders: TrainedEncoders = TrainedEncoders()
    latent_scaling: float | None = Field(None, gt=0, allow_inf_nan=False)
    sampling: SamplingSettings | None = None


def load_denoiser(path: Path, device: str) -> Denoiser:
    """Load a denoiser from a safetensors file, in evaluation mode. Memory for the model is
    allocated only after the header shows that the file holds all of its weights. Raises
    CheckpointError if the file is damaged or holds no denoiser."""
    header = _read_header(path)
    config = _describe(path, header).config
    _check_weights(path, header, config)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"{path}: {broken[0]} holds numbers that are not finite, so the model cannot be sampled"
        )
    denoiser = Denoiser(config)
    denoiser.load_state_dict(weights)
    return denoiser.to(device).eval()


def read_config(path: Path) -> DenoiserConfig:
    """The architecture of a denoiser on disk; its weights are not read. Raises CheckpointError."""
    return _describe(path, _read_header(path)).config


def read_latent_scaling(path: Path) -> float | None:
    """The factor by which raw latents are multiplied for this denoiser, or None if they are scaled
    as the VAE's config says. Raises CheckpointError."""
    return _describe(path, _read_header(path)).latent_scaling


def read_sampling(path: Path) -> SamplingSettings | None:
    """How a distilled model samples; None for other models, which sample as one chooses. Raises
    CheckpointError."""
    return _describe(path, _read_header(path)).sampling


def read_text_settings(path: Path) -> TextSettings:
    """What was chosen of the text encoder in the training of this denoiser. Raises
    CheckpointError."""
    return _describe(path, _read_header(path)).encoders.text_settings


def _read_header(path: Path) -> WeightsHeader:
    try:
        return read_weights_header(path)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except PermissionError:
        raise  # neither missing nor damaged
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _describe(path: Path, header: WeightsHeader) -> _Description:
    if _ENTRY not in header.metadata:
        raise CheckpointError(f"{path} holds no denoiser: its metadata lacks {_ENTRY!r}")
    try:
        return _Description.model_validate_json(header.metadata[_ENTRY])
    except (ValidationError, UnicodeEncodeError) as error:
        raise CheckpointError(
            f"{path} was written by another version of this project: {error}"
        ) from error


def _check_weights(path: Path, header: WeightsHeader, config: DenoiserConfig) -> None:
    """Raise CheckpointError if the header's weights are not those of the model. The model is not
    built for this."""
    if config.layers > len(header.shapes):
        raise CheckpointError(
            f"{path} holds {len(header.shapes)} weights, too few for {config.layers} layers"
        )
    try:
        with torch.device("meta"):
            expected = {
                name: tuple(tensor.shape) for name, tensor in Denoiser(config).state_dict().items()
            }
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} describes a model that cannot be built: {first_line}"
        ) from error
    if wrong := sorted(
        name
        for name in expected.keys() | header.shapes.keys()
        if expected.get(name) != header.shapes.get(name)
    ):
        name = wrong[0]
        raise CheckpointError(
            f"{path} does not hold the model that it describes: {name[:100]!r} is "
            f"{header.shapes.get(name, 'missing')}, "
            f"the model has {expected.get(name, 'no such weight')}; {len(wrong)} weights differ"
        )


def check_encoders(path: Path, vae: str, text_model: str) -> None:
    """Raise CheckpointError if a denoiser was trained on encodings of other encoders than these:
    the VAE, and the model that encodes captions. A file that does not name its encoders, such as an
    imported one, is accepted."""
    problems = _describe(path, _read_header(path)).encoders.differences(vae, text_model)
    if problems:
        raise CheckpointError(
            f"{path} does not fit these encoders:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nUse the encoders that it was trained with, or train a model on these encodings."
        )
