"""The two layouts of apapiu/transformer_latent_diffusion: their weights' names and order, and ours.
Knows no files.

Two generations of that code give their weights the same names and shapes, and mean different things
by them:

main     is our default architecture.
legacy   normalizes after the residual sum, has 4 heads in cross-attention, and orders the features of heads as
         (d h): feature i belongs to head i mod h. No projection follows attention, so that the residual stream
         has that order too. The whole stream is reordered once, until the features of each head lie side by
         side: nothing is left to be done when the model runs.
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
_COUNTER = f"{BODY}.precomputed_pos_enc"  # 0, 1, 2, …: their code wants it, it holds nothing

# Their module -> ours.
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
_CONVOLUTIONS = ("mlp.mlp.0.weight", "mlp.mlp.3.weight")  # 1x1, which we hold as matrices

# Modules that write to the residual stream, with the number of parts that their rows are; and those
# that read it.
_WRITE = {
    **dict.fromkeys(("embed.1", "embed.2", "norm1", "norm2", "norm3", "feed_forward.contract"), 1),
    "self_attention.qkv": 3,
    "cross_attention.q": 1,
    "cross_attention.kv": 2,
}
_READ = frozenset(("self_attention.qkv", "cross_attention.q", "feed_forward.expand", "head"))


def from_layout(
    theirs: Mapping[str, Tensor], layout: Layout, sizes: DenoiserConfig
) -> tuple[DenoiserConfig, dict[str, Tensor]]:
    """Config and weights, ours, of a complete original model. Raises CheckpointError where
    `has_order` says no."""
    config = DenoiserConfig.model_validate(sizes.model_dump() | LAYOUTS[layout])
    ours = {
        name: theirs[original].flatten(1) if original.endswith(_CONVOLUTIONS) else theirs[original]
        for original, name in _names(config.layers).items()
        if original != _COUNTER
    }
    return config, _reordered(ours, _stream_order(config.width)) if layout == "legacy" else ours


def to_layout(
    ours: Mapping[str, Tensor], config: DenoiserConfig, layout: Layout
) -> dict[str, Tensor]:
    """The weights under the names, shapes and order of an original checkpoint. Raises
    CheckpointError, naming all settings of the model that the layout does not know."""
    if problems := _unsupported(config, layout):
        raise CheckpointError(f"layout {layout} cannot hold this model:\n" + "\n".join(problems))
    if layout == "legacy":
        ours = _reordered(ours, _stream_order(config.width).argsort())
    theirs: dict[str, Tensor] = {}
    for original, name in _names(config.layers).items():
        if original == _COUNTER:
            theirs[original] = torch.arange(config.tokens)
        else:
            theirs[original] = (
                ours[name][:, :, None, None] if original.endswith(_CONVOLUTIONS) else ours[name]
            )
    return theirs


def has_order(layout: Layout, width: int) -> bool:
    """Whether a width's features can be ordered so that those of each head lie side by side."""
    heads = width // HEAD_WIDTH
    return layout == "main" or heads % 4 == 0 or 4 % heads == 0


def _names(layers: int) -> dict[str, str]:
    """Names of all weights: theirs, in the order of their file -> ours."""
    modules = dict(_EMBED) | {POSITION.removesuffix(".weight"): "position"}
    for number in range(layers):
        modules |= {
            f"{BODY}.decoder_blocks.{number}.{theirs}": f"blocks.{number}.{ours}"
            for theirs, ours in _BLOCK.items()
        }
    names = {"fourier_feats.0.angular_speeds": "noise_embedding.angular_speeds"}
    names |= _leaves(_START) | {_COUNTER: ""} | _leaves(modules | _END)
    return names


def _leaves(modules: Mapping[str, str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for theirs, ours in modules.items():
        if ours == "position":
            names[f"{theirs}.weight"] = ours
            continue
        names[f"{theirs}.weight"] = f"{ours}.weight"
        if "attention" not in ours:
            names[f"{theirs}.bias"] = f"{ours}.bias"
    return names


def _stream_order(width: int) -> Tensor:
    """Place in our residual stream -> place in theirs.

    Self-attention has width/64 heads and cross-attention 4. Each head of the one that has more lies
    within one of the other: so features are sorted by their head of the fewer, then by that of the
    more.
    """
    if not has_order("legacy", width):
        raise CheckpointError(
            f"layout legacy at width {width} has {width // HEAD_WIDTH} heads of self-attention and "
            "4 of "
            "cross-attention, whose features cannot all lie side by side: such a model cannot be "
            "held"
        )
    heads = width // HEAD_WIDTH
    few, many = min(heads, 4), max(heads, 4)
    return torch.tensor(sorted(range(width), key=lambda place: (place % few, place % many, place)))


def _reordered(weights: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """The same model with its residual stream in another order."""
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


def _unsupported(config: DenoiserConfig, layout: Layout) -> list[str]:
    """Settings of a model that a layout does not know, with their values: whatever is not a
    size."""
    defaults = DenoiserConfig().model_dump() | LAYOUTS[layout]
    model = config.model_dump()
    for settings in (defaults, model):
        settings["cross_attention_heads"] = (
            settings["cross_attention_heads"] or config.width // HEAD_WIDTH
        )
    return [
        f"  model.{name} is {value!r}, and there always {defaults[name]!r}"
        for name, value in model.items()
        if name not in SIZES and value != defaults[name]
    ]
