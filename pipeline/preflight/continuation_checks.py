"""Preflight checks of train.continue_from: whether a training can continue from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.model_files import NoCheckpoint, checkpoint_to_continue
from data_catalog.storage.object_access import ObjectStorageError
from pipeline.config.run import RunConfig
from tld_model.config import DenoiserConfig, TextSettings

if TYPE_CHECKING:
    from tld_model.training_state import StoredState

# Settings of a model of which init_from adapts weights to another value.
_ADAPTED = ("latent_size", "inpainting")


def continuation_problems(config: RunConfig) -> Iterator[str]:
    """Compare a training with the checkpoint that train.continue_from names."""
    chosen = config.train.continue_from
    if chosen is None:
        return
    from tld_model.training_state import DamagedState, describe_training_state

    try:
        path = checkpoint_to_continue(chosen)
        state = describe_training_state(path)
    except DamagedState as error:
        yield f"train.continue_from: {path} is damaged, or no checkpoint of a training: {error}"
    except (NoCheckpoint, OSError, ObjectStorageError) as error:
        yield f"train.continue_from: {error}"
    else:
        for check in (_model, _encoders, _optimizer, _averages, _steps):
            for problem in check(config, path, state):
                yield f"train.continue_from: {problem}"


def differing_text_settings(
    settings: TextSettings, trained_with: TextSettings
) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and value in training of what is chosen otherwise of the text encoder. A layer
    counted from the last cannot be compared."""
    for name in ("template", "layer"):
        have, theirs = getattr(settings, name), getattr(trained_with, name)
        if have != theirs and not (isinstance(have, int) and have < 0):
            yield name, have, theirs


def _model(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    if state.model is None:
        yield from _weights(config, path, state)
        return
    for name, have in config.model.model_dump(mode="json").items():
        before = state.model.get(name, DenoiserConfig.model_fields[name].get_default())
        if have != before:
            adapts = ", or start from its weights alone with train.init_from"
            yield (
                f"model.{name} is {have}, but {path} has {before}; set model.{name}={before}"
                + (adapts if name in _ADAPTED else "")
            )


def _weights(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    """Compare shapes, since checkpoints of earlier versions do not hold the model's settings. They
    all have original blocks."""
    if config.model.blocks != "original":
        yield (
            f"model.blocks is {config.model.blocks}, but {path} has original; set "
            "model.blocks=original"
        )
        return
    import torch

    from tld_model.denoiser import Denoiser

    with torch.device("meta"):
        weights = Denoiser(config.model).state_dict()
    ours = {name: list(tensor.shape) for name, tensor in weights.items()}
    theirs = {name: list(tensor.shape) for name, tensor in state.denoiser.items()}
    names = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if names:
        first = names[0]
        yield (
            f"{path} is of a model with other settings: {len(names)} weights differ; {first} is "
            f"{theirs.get(first, 'missing')}, and would be {ours.get(first, 'missing')} here"
        )


def _encoders(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    encode, known = config.encode, state.encoders
    for problem in known.differences(encode.vae, encode.text_model):
        yield f"{path}: {problem}"
    if known.vae:
        for name, have, theirs in differing_text_settings(
            encode.text_settings, known.text_settings
        ):
            yield f"encode.text_{name} is {have!r}, but {path} has {theirs!r}"


def _optimizer(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    of_muon = any("momentum_buffer" in memory for memory in state.optimizer.state.values())
    have, theirs = config.train.optimizer, "muon" if of_muon else "adamw"
    if have != theirs:
        yield (
            f"train.optimizer is {have}, but {path} has the state of {theirs}; set "
            f"train.optimizer={theirs}"
        )


def _averages(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    missing = [str(d) for d in config.train.ema_decay if str(d) not in state.averages]
    if missing:
        theirs = ",".join(state.averages)
        yield (
            f"train.ema_decay has {', '.join(missing)}, but {path} has averages of {theirs} only; "
            f"set train.ema_decay=[{theirs}]"
        )


def _steps(config: RunConfig, path: Path, state: StoredState) -> Iterator[str]:
    if state.step >= config.train.steps:
        yield (
            f"{path} has done {state.step} steps, and train.steps, which counts them too, is "
            f"{config.train.steps}; set train.steps higher"
        )
    elif config.train.decay_steps and state.step > config.train.trunk_steps:
        yield (
            f"{path} has done {state.step} steps, and the decay would have begun at step "
            f"{config.train.trunk_steps}; set train.steps to at least "
            f"{state.step + config.train.decay_steps}, or train.decay_steps lower"
        )
