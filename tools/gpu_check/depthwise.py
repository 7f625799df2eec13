"""The section on the depthwise convolution and GELU: by torch's layers and by the fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.run import RunConfig
from pipeline.train.fast_blocks import fused_depthwise, largest_error
from tld_model.layers import FeedForward
from tools.gpu_check.machine import Figures, Machine
from tools.gpu_check.steps import step_of

_DTYPES = (torch.bfloat16, torch.float32)
_NO_GPU = "no GPU"

Way = Callable[[Tensor], Tensor]


def depthwise(device: str) -> Figures:
    """The 3x3 depthwise convolution and GELU of one block, forward and backward: as the model has
    it, on a channels-last view of the tokens, on contiguous channels, and by the fused kernel; and
    a compiled training step with that."""
    machine = Machine(device)
    config = machine.config()
    model, rows = config.model, config.model.latent_size // config.model.patch_size
    layer = FeedForward(model.width, model.mlp_multiplier).to(machine.device)
    layer.expand, layer.contract = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    channels = layer.depthwise.in_channels
    yield "channels", channels
    yield "layers", model.layers
    shape = (config.train.batch_size, rows * rows, channels)
    ways = _ways_of_torch(layer, rows)
    if machine.is_gpu:
        ways["fused"] = _fused_layer(layer, rows)
    for dtype in _DTYPES:
        layer.to(dtype)
        tokens = torch.randn(shape, device=machine.device).to(dtype).requires_grad_()
        gradient = torch.randn(shape, device=machine.device).to(dtype)
        for name, way in ways.items():
            figures = _forward_and_backward(machine, way, tokens, gradient)
            figures["step_ms"] = round(figures["both_ms"] * model.layers, 3)
            yield f"{name}_{_name(dtype)}", figures
        both = (ways["model"], ways["fused"]) if machine.is_gpu else None
        agreement = _agreement(layer, both, tokens, gradient) if both else _NO_GPU
        yield f"agreement_{_name(dtype)}", agreement
    yield "compiled_fused_step_ms", _fused_step_ms(machine, config) if machine.is_gpu else _NO_GPU


def _ways_of_torch(layer: FeedForward, rows: int) -> dict[str, Way]:
    def channels_last(tokens: Tensor) -> Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (rows, rows))  # [b, c, r, s], a view
        return F.gelu(layer.depthwise(x)).flatten(2).transpose(1, 2)

    def contiguous(tokens: Tensor) -> Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (rows, rows)).contiguous()
        return F.gelu(layer.depthwise(x)).flatten(2).transpose(1, 2).contiguous()

    return {"model": layer, "channels_last": channels_last, "contiguous": contiguous}


def _fused_layer(layer: FeedForward, rows: int) -> Way:
    fused, convolution = fused_depthwise(), layer.depthwise
    return lambda tokens: fused(tokens, convolution.weight, _bias(convolution), rows)


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias


def _forward_and_backward(
    machine: Machine, way: Way, tokens: Tensor, gradient: Tensor
) -> dict[str, float]:
    def forward() -> None:
        with torch.no_grad():
            way(tokens)

    def both() -> None:
        tokens.grad = None
        way(tokens).backward(gradient)

    forward_ms, both_ms = machine.milliseconds(forward), machine.milliseconds(both)
    return {
        "forward_ms": round(forward_ms, 4),
        "both_ms": round(both_ms, 4),
        # Read and written once forward; the input, its gradient and the output's once backward.
        "gb_per_s": round(5 * tokens.nbytes / both_ms / 1e6, 1),
    }


def _agreement(
    layer: FeedForward, ways: tuple[Way, Way], tokens: Tensor, gradient: Tensor
) -> dict[str, Any]:
    """The largest errors of output and gradients of torch's layers and of the fused kernel, as a
    share of the norm of the plain result in fp32, and whether the kernel repeats its bits."""
    plain, fused = (_results(layer, way, tokens, gradient) for way in ways)
    again = _results(layer, ways[1], tokens, gradient)
    dtype = tokens.dtype
    layer.float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        exact = _results(layer, layer, tokens.detach().float().requires_grad_(), gradient.float())
    layer.to(dtype)
    errors = {"layers": largest_error(plain, exact), "fused": largest_error(fused, exact)}
    repeats = all(map(torch.equal, fused, again))
    return {**errors, "repeats_exactly": repeats}


def _results(layer: FeedForward, way: Way, tokens: Tensor, gradient: Tensor) -> list[Tensor]:
    out = way(tokens)
    leaves = [tokens, *layer.depthwise.parameters()]
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def _fused_step_ms(machine: Machine, config: RunConfig) -> float:
    state = machine.state(config)
    state.denoiser.fuse_depthwise(fused_depthwise())
    machine.compile(state)
    return round(machine.milliseconds(step_of(machine, state, config), round_s=0.5), 3)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
