"""The config.json of a local encoder, read without torch."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tld_model.encoders.names import SHIPPED_ENCODERS, encoder_folder, split_revision
from tld_model.encoders.vae_config import VaeConfig, class_problem


def encoder_problem(name: str) -> str | None:
    """The reason why this cannot be an encoder, or None if it may be one."""
    folder, shipped = encoder_folder(name), ", ".join(SHIPPED_ENCODERS)
    if folder is None and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        return (
            f"{name!r} is neither a folder, nor a Hugging Face name (owner/name, or "
            f"owner/name@revision), nor one of {shipped}"
        )
    if folder is None:
        try:
            split_revision(name)
        except ValueError as error:
            return str(error)
    if folder and not (folder / "config.json").exists():
        return f"{str(folder)!r} holds no config.json, so it is not an encoder"
    return None


def vae_downscale(name: str) -> int | None:
    """The number of pixels per latent along each axis, or None if the VAE's config is not on a
    local disk."""
    vae = encoder_config(name, VaeConfig)
    return vae.downscale if vae else None


def vae_problem(name: str) -> str | None:
    """The reason why an encoder cannot be a VAE, as far as a config on a local disk shows it, or
    None if it may be one."""
    vae = encoder_config(name, VaeConfig)
    return class_problem(name, vae.class_name) if vae else None


_Kind = TypeVar("_Kind", bound=BaseModel)


def encoder_config(name: str, kind: type[_Kind]) -> _Kind | None:
    """The config of an encoder in a local folder, or None if there is no valid one. The encoder's
    loader reports what is wrong with it."""
    folder = encoder_folder(name)
    try:
        return kind.model_validate_json((folder / "config.json").read_bytes()) if folder else None
    except (OSError, ValidationError):
        return None
