"""A fused kernel in Triton: 3x3 depthwise convolution, bias and GELU on tokens, with its gradients.

It reads and writes tokens [b, n, c] as they lie in memory, with the channels next to each other,
where torch's convolution needs a transpose before and after. In bytes per element of half
precision, the forward pass moves 4 (input, output) and the backward pass 12: first it computes the
input of the GELU again for its gradient (input, gradient of the output, this gradient), then the
gradients of input and filters (this gradient, input, gradient of the input). Only the input is kept
between them. Neighbours are expected in the GPU's caches.

Arithmetic is in fp32. Equal inputs give equal bits: partial sums are added in a fixed order, which
follows from the shape and the alignment of the inputs.

Import this module only where triton is installed. In Triton's interpreter (TRITON_INTERPRET=1) the
kernels run on a CPU. To torch.compile they are two operators without an inside, because the
interpreter cannot trace what `torch.library.triton_op` shows of a kernel.

b batch   n tokens, r rows of s   c channels   t tokens of a tile
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

_CHANNELS = tl.constexpr(64)  # of a tile: of half precision, what a line of the cache holds
_TOKENS = tl.constexpr(32)  # of a tile
_SUMMED_TOKENS = tl.constexpr(16)  # of a tile for which a program keeps ten sums in registers
_PARTS = 128  # at most, into which the tokens are divided for these sums


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Tensor:
    """GELU(convolution(x) + bias): x [b, n, c] in fp32, bf16 or fp16 -> [b, n, c] in its type, or
    in that of autocast. Around its r rows the image is zero.

    The weight, [c, 1, 3, 3], and the bias, [c], enter in fp32 under autocast too, where torch's
    convolution rounds them.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    filters = torch.cat([weight.flatten(1).t(), bias[None]]).float()  # [10, c], the bias below
    out: Tensor = _forward(x, filters, rows)  # [b, n, c]
    return out


@torch.library.custom_op("tld::depthwise_gelu", mutates_args=())
def _forward(x: Tensor, filters: Tensor, rows: int) -> Tensor:
    x, filters = x.contiguous(), filters.contiguous()
    out = torch.empty_like(x)
    sizes = _sizes(x, rows)
    with torch.cuda.device_of(x):
        _forward_kernel[_grid(sizes)](x, filters, out, sizes)
    return out


@torch.library.custom_op("tld::depthwise_gelu_backward", mutates_args=())
def _backward(gradient: Tensor, x: Tensor, filters: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The gradients of x, [b, n, c], and of the filters, [10, c]."""
    gradient, x, filters = gradient.contiguous(), x.contiguous(), filters.contiguous()
    inner, of_x = torch.empty_like(x), torch.empty_like(x)
    sizes = _sizes(x, rows)
    grid = _grid(sizes)
    parts = min(_PARTS, triton.cdiv(sizes[0], _SUMMED_TOKENS.value))
    sums = filters.new_empty(parts, *filters.shape)
    with torch.cuda.device_of(x):
        _gelu_backward_kernel[grid](x, filters, gradient, inner, sizes)
        _convolution_backward_kernel[parts, grid[1]](x, filters, inner, of_x, sums, sizes)
    return of_x, sums.sum(0)


@_forward.register_fake
def _(x: Tensor, filters: Tensor, rows: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(gradient: Tensor, x: Tensor, filters: Tensor, rows: int) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    whole = torch.contiguous_format
    return torch.empty_like(x, memory_format=whole), torch.empty_like(filters, memory_format=whole)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:  # noqa: ARG001
    x, filters, ctx.rows = inputs
    ctx.save_for_backward(x, filters)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    of_x, of_filters = _backward(gradient, *ctx.saved_tensors, ctx.rows)
    return of_x, of_filters, None


_forward.register_autograd(_gradients, setup_context=_keep_inputs)


def _sizes(x: Tensor, rows: int) -> tuple[int, int, int, int]:
    """The number of all tokens, rows, tokens in a row, channels."""
    b, n, c = x.shape
    return b * n, rows, n // rows, c


def _grid(sizes: tuple[int, int, int, int]) -> tuple[int, int]:
    return triton.cdiv(sizes[0], _TOKENS.value), triton.cdiv(sizes[3], _CHANNELS.value)


@triton.jit
def _forward_kernel(x, filters, out, sizes):
    token = tl.program_id(0) * _TOKENS + tl.arange(0, _TOKENS)  # [t]
    channel = tl.program_id(1) * _CHANNELS + tl.arange(0, _CHANNELS)  # [c]
    z = _convolution(x, filters, token, channel, sizes)  # [t, c]
    _store(out, token, channel, sizes, z * _normal_cdf(z))


@triton.jit
def _gelu_backward_kernel(x, filters, gradient, inner, sizes):
    """inner: the gradient of the input z of the GELU."""
    token = tl.program_id(0) * _TOKENS + tl.arange(0, _TOKENS)  # [t]
    channel = tl.program_id(1) * _CHANNELS + tl.arange(0, _CHANNELS)  # [c]
    z = _convolution(x, filters, token, channel, sizes)  # [t, c]
    density = tl.exp(-0.5 * z * z) * 0.3989422804014327  # [t, c]; 1 / sqrt(2 pi)
    of_out = _load(gradient, token, channel, sizes, 0, 0)  # [t, c]
    _store(inner, token, channel, sizes, of_out * (_normal_cdf(z) + z * density))


@triton.jit
def _convolution_backward_kernel(x, filters, inner, of_x, sums, sizes):
    """The gradient of x, and for that of the filters the sums over one part: [parts, 10, c]"""
    part, c = tl.program_id(0), sizes[3]
    channel = tl.program_id(1) * _CHANNELS + tl.arange(0, _CHANNELS)  # [c]
    tiles = tl.cdiv(tl.cdiv(sizes[0], _SUMMED_TOKENS), tl.num_programs(0))
    zeros = tl.zeros((_SUMMED_TOKENS, _CHANNELS), tl.float32)
    totals = (zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros)
    for tile in range(part * tiles, (part + 1) * tiles):
        token = tile * _SUMMED_TOKENS + tl.arange(0, _SUMMED_TOKENS)  # [t]
        value = _load(x, token, channel, sizes, 0, 0)  # [t, c]
        result = zeros
        added = ()
        for tap in tl.static_range(9):
            # To its neighbour above, the token is the one below: the offsets change their signs.
            g = _load(inner, token, channel, sizes, 1 - tap // 3, 1 - tap % 3)  # [t, c]
            result += _filter(filters, tap, channel, c) * g
            added += (totals[tap] + value * g,)
        added += (totals[9] + _load(inner, token, channel, sizes, 0, 0),)
        totals = added
        _store(of_x, token, channel, sizes, result)
    for row in tl.static_range(10):
        place = sums + (part * 10 + row) * c + channel
        tl.store(place, tl.sum(totals[row], 0), mask=channel < c)


@triton.jit
def _convolution(x, filters, token, channel, sizes):
    """[t, c]"""
    z = _filter(filters, 9, channel, sizes[3])  # [1, c], the bias
    for tap in tl.static_range(9):
        value = _load(x, token, channel, sizes, tap // 3 - 1, tap % 3 - 1)  # [t, c]
        z += _filter(filters, tap, channel, sizes[3]) * value  # [t, c]
    return z


@triton.jit
def _filter(filters, row, channel, c):
    """One row of the filters: [1, c]"""
    return tl.load(filters + row * c + channel, mask=channel < c, other=0.0)[None, :]


@triton.jit
def _load(x, token, channel, sizes, down, right):
    """The neighbours of tokens, so many rows down and columns right, zero outside: [t, c]"""
    total, rows, columns, c = sizes
    row = token // columns % rows + down  # [t]
    column = token % columns + right  # [t]
    inside = (token < total) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    neighbour = (token + down * columns + right).to(tl.int64)  # [t]
    place = x + neighbour[:, None] * c + channel[None, :]
    return tl.load(place, mask=inside[:, None] & (channel < c)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _store(out, token, channel, sizes, value):
    total, c = sizes[0], sizes[3]
    place = out + token.to(tl.int64)[:, None] * c + channel[None, :]
    mask = (token < total)[:, None] & (channel < c)[None, :]
    tl.store(place, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _normal_cdf(z):
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))
