"""Checked loading of pretrained weights from a folder or the Hugging Face hub: either all of them
are loaded, or an error names the folder.

The loaders of diffusers and transformers are passed in.
"""

from __future__ import annotations

import json
import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tld_model.encoders.names import encoder_folder, split_revision


class EncoderError(ValueError):
    """An encoder cannot be loaded or does not fit. The message names it and says what to do."""

    exit_code = 2


def load_model(what: str, name_or_path: str, load: Callable[..., Any]) -> Any:
    """Load a model and check that all of its weights come from its files, because the libraries
    silently fill in missing weights at random. `load` must return the missing weights too
    (`output_loading_info`). Raises EncoderError if the model is incomplete or cannot be loaded."""
    if folder := encoder_folder(name_or_path):
        _check_depth(what, folder)
    model, loading_info = load_files(what, name_or_path, load)
    if missing := sorted(loading_info["missing_keys"]):
        raise EncoderError(
            f"the {what} of {name_or_path!r} lacks {len(missing)} of the weights that its config "
            f"describes, such as {missing[0]}: its files are incomplete or belong to another model"
        )
    broken = (name for name, weight in model.state_dict().items() if not weight.isfinite().all())
    if name := next(broken, None):
        raise EncoderError(
            f"the {what} of {name_or_path!r}: {name} holds numbers that are not finite"
        )
    return model


def load_files(what: str, name_or_path: str, load: Callable[..., Any]) -> Any:
    """Call `load` on a folder, or on a name on the hub with its revision. Raises EncoderError if it
    fails."""
    folder = encoder_folder(name_or_path)
    if folder is None and (name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1):
        raise EncoderError(f"no {what} at {name_or_path!r}: there is no such folder")
    try:
        if folder:
            return load(folder, local_files_only=True)
        name, revision = split_revision(name_or_path)
        with _without_remarks():
            return load(name, revision=revision) if revision else load(name)
    except EncoderError:
        raise
    except Exception as error:  # an untrusted folder can cause any error in the libraries
        reason = _summary(_network_error(error) or error)
        if folder:
            raise EncoderError(f"cannot load a {what} from {str(folder)!r}: {reason}") from error
        raise EncoderError(
            f"cannot fetch {what} {name_or_path!r} from the Hugging Face hub, and there is no "
            "folder of that name; download it on another machine and give its path "
            f"({reason})"
        ) from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep the hub's client from printing a line for each failed try, and diffusers from warning of
    an argument of its own."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*local_dir_use_symlinks", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def weights_dtype(device: str) -> torch.dtype:
    """The dtype in which an encoder runs on a device."""
    return torch.float16 if device.startswith("cuda") else torch.float32


def _network_error(error: BaseException) -> BaseException | None:
    """The failure of the network behind an error, which the libraries call a missing file."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror | ConnectionError | TimeoutError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _summary(error: BaseException) -> str:
    """The first line of an error message, and the next line too if the first is a heading."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    # In this case the libraries write the shapes only to a log.
    if first.startswith("You set `ignore_mismatched_sizes`"):
        return "its weights have other shapes than its config describes"
    return f"{first} {more[0].strip()}" if first.endswith(":") and more else first


def _check_depth(what: str, folder: Path) -> None:
    """Raise EncoderError if a config describes more layers than there are weights, because building
    such a model takes minutes."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        layers = _deepest(config)
        weights = sum(_count_weights(path) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, RecursionError, SafetensorError):
        return  # the libraries report what is wrong with the file
    if 0 < weights < layers:
        raise EncoderError(
            f"the {what} in {str(folder)!r} has {weights} weights, too few for {layers} layers"
        )


def _count_weights(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return len(file.keys())


def _deepest(config: Any, name: str = "") -> int:
    """The largest number of layers or blocks anywhere in a config."""
    match config:
        case dict():
            return max((_deepest(value, key) for key, value in config.items()), default=0)
        case list():
            return max((_deepest(value, name) for value in config), default=0)
        case int() if "layers" in name or "blocks" in name:
            return config
    return 0
