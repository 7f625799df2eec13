"""Conversion of weights between apapiu/transformer_latent_diffusion (the original project) and tld.

Two generations of the original code use the same names and shapes for weights with different
meanings:

main     is our default architecture.
legacy   normalizes after the residual sum, has 4 heads in cross-attention, and orders the features
         of heads as (d h): feature i belongs to head i mod h. No projection follows attention, so
         the residual stream has that order too. The whole stream is reordered once, so that the
         features of each head are contiguous, and nothing has to be done when the model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from tld_model.checkpoint import CheckpointError
from tld_model.config import DenoiserConfig
from tld_model.layers import HEAD_WIDTH

Layout = Literal["main", "legacy"]
LAYOUTS: dict[Layout, dict[str, Any]] = {
    "main": {},
    "legacy": {"cross_attention_heads": 4, "norm": "post"},
}
SIZES = frozenset(
    (
        "latent_size",
        "latent_channels",
        "text_dim",
        "patch_size",
        "width",
        "layers",
        "mlp_multiplier",
        "noise_embed_dim",
    )
)

BODY = "denoiser_trans_block"
POSITION = f"{BODY}.pos_embed.weight"
# The numbers 0, 1, 2, …: the original code requires this entry, although it holds no information.
_COUNTER = f"{BODY}.precomputed_pos_enc"

# Original module -> our module.
_START = {
    "fourier_feats.1": "noise_embedding.expand",
    "fourier_feats.3": "noise_embedding.contract",
}
_EMBED = {
    f"{BODY}.patchify_and_embed.0": "patchify",
    f"{BODY}.patchify_and_embed.2": "embed.0",
    f"{BODY}.patchify_and_embed.3": "embed.1",
    f"{BODY}.patchify_and_embed.4": "embed.2",
}
_BLOCK = {
    "self_attention.qkv_linear": "self_attention.qkv",
    "cross_attention.kv_linear": "cross_attention.kv",
    "cross_attention.q_linear": "cross_attention.q",
    "mlp.mlp.0": "feed_forward.expand",
    "mlp.mlp.1": "feed_forward.depthwise",
    "mlp.mlp.3": "feed_forward.contract",
    **{name: name for name in ("norm1", "norm2", "norm3")},
}
_END = {f"{BODY}.out_proj.0": "head", "norm": "condition_norm", "label_proj": "text_projection"}
_CONVOLUTIONS = ("mlp.mlp.0.weight", "mlp.mlp.3.weight")  # 1x1, stored as matrices in our model

# Modules that write to the residual stream, with the number of parts into which their rows are
# split, and modules that read from it.
_WRITE = {
    **dict.fromkeys(("embed.1", "embed.2", "norm1", "norm2", "norm3", "feed_forward.contract"), 1),
    "self_attention.qkv": 3,
    "cross_attention.q": 1,
    "cross_attention.kv": 2,
}
_READ = frozenset(("self_attention.qkv", "cross_attention.q", "feed_forward.expand", "head"))


def from_layout(
    original: Mapping[str, Tensor], layout: Layout, sizes: DenoiserConfig
) -> tuple[DenoiserConfig, dict[str, Tensor]]:
    """Our config and weights of a complete original model. Raises CheckpointError if `has_order`
    is false."""
    config = DenoiserConfig.model_validate(sizes.model_dump() | LAYOUTS[layout])
    weights = {
        name: original[old].flatten(1) if old.endswith(_CONVOLUTIONS) else original[old]
        for old, name in _names(config.layers).items()
        if old != _COUNTER
    }
    if layout == "legacy":
        weights = _reordered(weights, _stream_order(config.width))
    return config, weights


def to_layout(
    weights: Mapping[str, Tensor], config: DenoiserConfig, layout: Layout
) -> dict[str, Tensor]:
    """Our weights under the names, shapes and order of an original checkpoint. Raises
    CheckpointError if the layout does not support the model; the message names all settings
    concerned."""
    if problems := unsupported_settings(config, layout):
        raise CheckpointError(f"layout {layout} cannot hold this model:\n" + "\n".join(problems))
    if layout == "legacy":
        weights = _reordered(weights, _stream_order(config.width).argsort())
    original: dict[str, Tensor] = {}
    for old, name in _names(config.layers).items():
        if old == _COUNTER:
            original[old] = torch.arange(config.tokens)
        elif old.endswith(_CONVOLUTIONS):
            original[old] = weights[name][:, :, None, None]
        else:
            original[old] = weights[name]
    return original


def has_order(layout: Layout, width: int) -> bool:
    """Whether the features of this width can be ordered so that those of each head are
    contiguous."""
    heads = width // HEAD_WIDTH
    return layout == "main" or heads % 4 == 0 or 4 % heads == 0


def _names(layers: int) -> dict[str, str]:
    """The names of all weights, original -> ours, in the order of an original file."""
    modules = dict(_EMBED) | {POSITION.removesuffix(".weight"): "position"}
    for number in range(layers):
        modules |= {
            f"{BODY}.decoder_blocks.{number}.{old}": f"blocks.{number}.{new}"
            for old, new in _BLOCK.items()
        }
    names = {"fourier_feats.0.angular_speeds": "noise_embedding.angular_speeds"}
    names |= _leaves(_START) | {_COUNTER: ""} | _leaves(modules | _END)
    return names


def _leaves(modules: Mapping[str, str]) -> dict[str, str]:
    """The names of the weights and biases of modules, original -> ours."""
    names: dict[str, str] = {}
    for old, new in modules.items():
        if new == "position":
            names[f"{old}.weight"] = new
            continue
        names[f"{old}.weight"] = f"{new}.weight"
        if "attention" not in new:
            names[f"{old}.bias"] = f"{new}.bias"
    return names


def _stream_order(width: int) -> Tensor:
    """Index in our residual stream -> index in the original one.

    Self-attention has width/64 heads and cross-attention has 4. Each head of the attention with
    more heads lies within one head of the other. So features are sorted first by their head in the
    attention with fewer heads, then by their head in the other.
    """
    if not has_order("legacy", width):
        raise CheckpointError(
            f"layout legacy at width {width} has {width // HEAD_WIDTH} heads of self-attention and "
            "4 of cross-attention, whose features cannot all be contiguous, so this model cannot "
            "be converted"
        )
    heads = width // HEAD_WIDTH
    few, many = min(heads, 4), max(heads, 4)
    return torch.tensor(sorted(range(width), key=lambda place: (place % few, place % many, place)))


def _reordered(weights: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """The weights of the same model with its residual stream in another order."""
    reordered = dict(weights)
    for name, tensor in weights.items():
        module = name.rpartition(".")[0]
        if module.startswith("blocks."):
            module = module.split(".", 2)[2]
        if module in _WRITE:
            tensor = torch.cat([part[order] for part in tensor.chunk(_WRITE[module])])
        if name == "position" or (module in _READ and tensor.ndim > 1):
            tensor = tensor[:, order]
        reordered[name] = tensor
    return reordered


def unsupported_settings(config: DenoiserConfig, layout: Layout) -> list[str]:
    """Problems with the settings of a model that a layout fixes, which are all but the sizes."""
    defaults = DenoiserConfig().model_dump() | LAYOUTS[layout]
    model = config.model_dump()
    for settings in (defaults, model):
        settings["cross_attention_heads"] = (
            settings["cross_attention_heads"] or config.width // HEAD_WIDTH
        )
    return [
        f"  model.{name} is {value!r}, but layout {layout} always has {defaults[name]!r}"
        for name, value in model.items()
        if name not in SIZES and value != defaults[name]
    ]
