"""Import and export of checkpoint files of apapiu/transformer_latent_diffusion, the original
project.

Files are read with `weights_only`, so that no code in them is run. The sizes of a model are read
from the shapes of its weights.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from tld_model.checkpoint import CheckpointError
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.original_layouts import (
    BODY,
    LAYOUTS,
    POSITION,
    Layout,
    from_layout,
    has_order,
    to_layout,
)

# Names under which training loops store the weights; averaged weights come first.
_WRAPPINGS = ("model_ema", "ema", "model", "state_dict")
_PREFIXES = ("_orig_mod", "module")  # added to names by compilation and by data parallelism
_SHOWN = 8  # problems in an error message
_PROJECT = "apapiu/transformer_latent_diffusion"


@dataclass(frozen=True, slots=True)
class Published:
    """An original model, converted to our config and weights."""

    config: DenoiserConfig
    weights: dict[str, Tensor]
    layout: Layout
    reason: str  # why this layout was chosen


def import_published(path: Path, layout: Layout | None = None) -> Published:
    """Read an original .pth file. Both layouts are tried (`repetition_error`) to find or check its
    layout.

    Raises:
        CheckpointError: the file is damaged or holds no such model; or no layout is given and the
            trial is not conclusive; or the trial shows that the given layout is wrong.
    """
    original = _read(path)
    sizes = _sizes(original, path)
    _check_shapes(original, sizes, path)

    models = {
        name: from_layout(original, name, sizes)
        for name in LAYOUTS
        if name == layout or has_order(name, sizes.width)
    }
    errors = {name: repetition_error(*model) for name, model in models.items()}
    chosen, reason = _decide(errors, layout, path)
    config, weights = models[chosen]
    return Published(config, weights, chosen, reason)


def export_published(
    path: Path, weights: Mapping[str, Tensor], config: DenoiserConfig, layout: Layout
) -> None:
    """Write an original .pth file. Raises CheckpointError if the layout does not support the model;
    the message names all settings concerned."""
    original = to_layout(weights, config, layout)
    torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in original.items()},
        path,
    )


@torch.no_grad()
def repetition_error(config: DenoiserConfig, weights: Mapping[str, Tensor]) -> float:
    """The error with which a denoiser reproduces smooth latents with almost no noise, relative to
    their norm: near 0 for a trained model read with the right layout, about 1 or more with the
    wrong one."""
    generator, sigma = torch.Generator().manual_seed(0), 0.02
    coarse = torch.randn(4, config.latent_channels, 4, 4, generator=generator)
    clean = F.interpolate(coarse, size=(config.latent_size,) * 2, mode="bicubic")  # [4, c, z, z]
    noisy = (1 - sigma) * clean + sigma * torch.randn(clean.shape, generator=generator)

    denoiser = Denoiser(config).eval()
    denoiser.load_state_dict(weights)
    again = denoiser(noisy, torch.full((4,), sigma), torch.zeros(4, config.text_dim))
    return float((again - clean).norm() / clean.norm())


def _decide(
    errors: Mapping[Layout, float], requested: Layout | None, path: Path
) -> tuple[Layout, str]:
    """The layout and the reason for it. The trial is conclusive if the latents are reproduced with
    one layout only."""
    best = min(errors, key=lambda name: errors[name])
    clear = errors[best] < 0.5 and all(
        error > 1.5 * errors[best] for name, error in errors.items() if name != best
    )
    evidence = "nearly clean latents were reproduced with an error of " + " and ".join(
        f"{error:.0%} read as {name}" for name, error in errors.items()
    )
    if requested is None and not clear:
        raise CheckpointError(
            f"{path} does not show its layout: {evidence}; choose it with --layout main or legacy"
        )
    if requested is not None and clear and best != requested:
        raise CheckpointError(f"{path} has the layout {best}, not {requested}: {evidence}")
    return requested or best, "as given" if requested else evidence


def _read(path: Path) -> dict[str, Tensor]:
    """The weights under their original names, without wrappings and prefixes."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and is not read because it could run "
            "code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a readable .pth file: {_first_line(error)}"
        ) from error
    for wrapping in _WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
            break
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not the named weights of a model"
        )

    named = {
        _bare(str(name)): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)
    }
    copies = [name.removesuffix(POSITION) for name in named if name.endswith(POSITION)]
    if not copies:
        some = ", ".join(str(name) for name in list(content)[:4]) or "nothing"
        raise CheckpointError(
            f"{path} holds no {_PROJECT} model: it has no {POSITION}; it begins with {some}"
        )
    prefix = next((copy for copy in copies if "ema" in copy), copies[0])
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in named.items()
        if name.startswith(prefix)
    }


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _PREFIXES)


def _sizes(original: Mapping[str, Tensor], path: Path) -> DenoiserConfig:
    """The sizes of a model, read from the shapes of its weights."""
    blocks = f"{BODY}.decoder_blocks."
    try:
        width, text_dim = original["label_proj.weight"].shape
        _, channels, patch, _ = original[f"{BODY}.patchify_and_embed.0.weight"].shape
        return DenoiserConfig(
            latent_size=math.isqrt(len(original[POSITION])) * patch,
            latent_channels=channels,
            text_dim=text_dim,
            patch_size=patch,
            width=width,
            layers=1 + max(int(name.split(".")[2]) for name in original if name.startswith(blocks)),
            mlp_multiplier=len(original[f"{blocks}0.mlp.mlp.0.weight"]) // width,
            noise_embed_dim=original["fourier_feats.1.weight"].shape[1],
        )
    except KeyError as error:
        raise CheckpointError(f"{path} is incomplete: it lacks {error.args[0]}") from None
    except (ValueError, IndexError) as error:
        problem = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else _first_line(error)
        )
        raise CheckpointError(
            f"{path} holds no {_PROJECT} model: the shapes of its weights do not fit: {problem}"
        ) from error


def _check_shapes(original: Mapping[str, Tensor], sizes: DenoiserConfig, path: Path) -> None:
    """Raise CheckpointError if weights are missing, are unknown or have another shape. The message
    names all of them."""
    with torch.device("meta"):
        expected = to_layout(Denoiser(sizes).state_dict(), sizes, "main")
    problems = [
        f"  {name} {list(tensor.shape)} is missing"
        for name, tensor in expected.items()
        if name not in original
    ]
    for name, tensor in original.items():
        if name not in expected:
            problems.append(f"  {name} {list(tensor.shape)} is unknown")
        elif tensor.shape != expected[name].shape:
            problems.append(f"  {name} is {list(tensor.shape)}, not {list(expected[name].shape)}")
    if problems:
        more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise CheckpointError(
            f"{path} holds no {_PROJECT} model:\n" + "\n".join(problems[:_SHOWN] + more)
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
