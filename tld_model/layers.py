"""Layers of the denoiser: attention, feed-forward with a depthwise convolution, noise embedding.

b batch   n tokens   m condition tokens   d width   h heads   k width of a head   r rows of tokens
s tokens in a row
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tld_model.config import DenoiserConfig

HEAD_WIDTH = 64

FusedDepthwise = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class NoiseEmbedding(nn.Module):
    """Noise level -> token: Fourier features at frequencies 1 to 1000, then a small MLP.

    The features are always computed in fp32, because half precision cannot represent the phase of
    the high frequencies. Their angular speeds are stored with the weights: if they were computed
    again, the exp of another machine could round them differently, which shifts the phase of the
    high frequencies by up to 1e-3.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        frequencies = torch.exp(
            torch.linspace(math.log(1.0), math.log(1000.0), features // 2, dtype=torch.float64)
        )
        self.register_buffer("angular_speeds", (2 * math.pi * frequencies).float())
        self.expand = nn.Linear(features, width)
        self.contract = nn.Linear(width, width)
        self.angular_speeds: Tensor

    def forward(self, sigma: Tensor) -> Tensor:
        with torch.autocast(sigma.device.type, enabled=False):
            phase = sigma.float()[:, None] * self.angular_speeds.float()  # [b, features/2]
            waves = torch.cat([phase.sin(), phase.cos()], dim=-1)  # [b, features]

        hidden = F.gelu(self.expand(waves.to(self.expand.weight.dtype)))  # [b, d]
        token: Tensor = self.contract(hidden)  # [b, d]
        return token


class SelfAttention(nn.Module):
    """Self-attention over all tokens. Heads are concatenated without an output projection."""

    def __init__(self, width: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q, self.norm_k = head_norm(enabled=qk_norm), head_norm(enabled=qk_norm)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part) for part in self.qkv(x).chunk(3, dim=-1))  # each [b, h, n, k]
        q, k = self.norm_q(q), self.norm_k(k)  # each [b, h, n, k]
        return merge_heads(attend(q, k, v))  # [b, n, d]


class CrossAttention(nn.Module):
    """Attention from every token to the condition tokens: to all of them, or to those for which the
    mask, bool [b, m], is true."""

    def __init__(self, width: int, heads: int | None = None, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.head_width = width // heads if heads else HEAD_WIDTH
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.norm_q, self.norm_k = (head_norm(self.head_width, enabled=qk_norm) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        q = split_heads(self.q(x), self.head_width)  # [b, h, n, k]
        # each [b, h, m, k]
        k, v = (split_heads(part, self.head_width) for part in self.kv(condition).chunk(2, dim=-1))
        q, k = self.norm_q(q), self.norm_k(k)  # [b, h, n, k], [b, h, m, k]
        key_mask = None if mask is None else mask[:, None, None]  # [b, 1, 1, m]
        return merge_heads(attend(q, k, v, key_mask))  # [b, n, d]


class FeedForward(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution, GELU, 1x1 convolution (LocalViT, Li et al.,
    2021).

    The 1x1 convolutions are written as linear layers on tokens, which gives the same numbers. What
    is between them is computed by `fused` where that is set: by one function of tokens [b, n, c],
    weight, bias and rows, as `fused_depthwise.depthwise_gelu`, which needs Triton and a GPU.
    """

    fused: FusedDepthwise | None = None

    def __init__(self, width: int, multiplier: int) -> None:
        super().__init__()
        hidden = width * multiplier
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        rows = rows or math.isqrt(x.shape[1])  # by default the tokens form a square

        x = self.expand(x)  # [b, n, hidden]
        x = self._depthwise_gelu(x, rows)  # [b, n, hidden]
        out: Tensor = self.contract(x)  # [b, n, d]
        return out

    def _depthwise_gelu(self, x: Tensor, rows: int) -> Tensor:
        if self.fused:
            weight, bias = self.depthwise.weight, self.depthwise.bias
            assert bias is not None
            return self.fused(x, weight, bias, rows)  # [b, n, hidden]
        x = x.transpose(1, 2).unflatten(2, (rows, -1))  # [b, hidden, r, s]
        x = F.gelu(self.depthwise(x))  # [b, hidden, r, s]
        return x.flatten(2).transpose(1, 2)  # [b, n, hidden]


class Block(nn.Module):
    """A transformer block: self-attention, cross-attention and feed-forward, with layer norms
    before each or after each sum. Tokens form a square unless a number of rows is given."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_first = config.norm == "pre"
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = SelfAttention(width, qk_norm=config.qk_norm)
        self.cross_attention = CrossAttention(
            width, config.cross_attention_heads, qk_norm=config.qk_norm
        )
        self.feed_forward = FeedForward(width, config.mlp_multiplier)

    def forward(
        self, x: Tensor, condition: Tensor, mask: Tensor | None = None, rows: int | None = None
    ) -> Tensor:
        if not self.norm_first:
            return self._norm_last(x, condition, mask, rows)
        x = x + self.self_attention(self.norm1(x))  # [b, n, d]
        x = x + self.cross_attention(self.norm2(x), condition, mask)  # [b, n, d]
        x = x + self.feed_forward(self.norm3(x), rows)  # [b, n, d]
        return x

    def _norm_last(
        self, x: Tensor, condition: Tensor, mask: Tensor | None, rows: int | None
    ) -> Tensor:
        x = self.norm1(x + self.self_attention(x))  # [b, n, d]
        x = self.norm2(x + self.cross_attention(x, condition, mask))  # [b, n, d]
        x = self.norm3(x + self.feed_forward(x, rows))  # [b, n, d]
        return x


class HeadNorm(nn.LayerNorm):
    """Layer norm over the width of each head, with one learned scale for all heads, always computed
    in fp32. (An RMS norm takes three times as long on a CPU.)"""

    def __init__(self, head_width: int) -> None:
        super().__init__(head_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float())  # [b, h, n, k]
        return normed.to(x.dtype)


def head_norm(head_width: int = HEAD_WIDTH, *, enabled: bool) -> nn.Module:
    """A norm for queries or keys, or the identity, which has no weights."""
    return HeadNorm(head_width) if enabled else nn.Identity()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(k)) v (Vaswani et al., 2017, eq. 1): q [b, h, n, k], k and v
    [b, h, m, k] -> [b, h, n, k]. A mask, bool [b, 1, 1, m], selects the keys.

    This is torch's own attention, except for training in bf16 on a CPU. There it is written out,
    because the backward pass of torch's fused kernel is slow and its plain kernel computes in fp32.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [b, h, n, m]
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    out: Tensor = scores.softmax(dim=-1) @ v  # [b, h, n, k]
    return out


def split_heads(x: Tensor, head_width: int = HEAD_WIDTH) -> Tensor:
    """[b, n, d] -> [b, h, n, k]"""
    b, n, d = x.shape
    return x.view(b, n, d // head_width, head_width).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b, h, n, k] -> [b, n, d]"""
    return x.transpose(1, 2).flatten(2)
