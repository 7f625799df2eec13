"""The parts of the denoiser: attention, feed-forward with a depthwise convolution, noise embedding.

b batch   n tokens   m condition tokens   d width   h heads   k width of a head   s side of the token square
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64


class NoiseEmbedding(nn.Module):
    """Noise level -> token: Fourier features at frequencies 1 to 1000, then a small MLP.

    The features are computed in fp32 whatever autocast says: half precision cannot hold the phase of
    the fast ones. Their angular speeds travel with the weights: computed anew, another machine's exp may
    round the fast ones differently, which shifts their phase by up to 1e-3.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.linspace(math.log(1.0), math.log(1000.0), features // 2, dtype=torch.float64))
        self.register_buffer("angular_speeds", (2 * math.pi * frequencies).float())
        self.expand = nn.Linear(features, width)
        self.contract = nn.Linear(width, width)
        self.angular_speeds: Tensor

    def forward(self, sigma: Tensor) -> Tensor:
        with torch.autocast(sigma.device.type, enabled=False):
            phase = sigma.float()[:, None] * self.angular_speeds.float()  # [b, features/2]
            waves = torch.cat([phase.sin(), phase.cos()], dim=-1)  # [b, features]

        token: Tensor = self.contract(F.gelu(self.expand(waves.to(self.expand.weight.dtype))))  # [b, d]
        return token


class SelfAttention(nn.Module):
    """Every token attends to every token; heads are concatenated, not projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part) for part in self.qkv(x).chunk(3, dim=-1))  # each [b, h, n, k]
        return merge_heads(F.scaled_dot_product_attention(q, k, v))  # [b, n, d]


class CrossAttention(nn.Module):
    """Every token attends to the condition tokens: to those where the mask, bool [b, m], is true, or to all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        q = split_heads(self.q(x))  # [b, h, n, k]
        k, v = (split_heads(part) for part in self.kv(condition).chunk(2, dim=-1))  # each [b, h, m, k]
        there = None if mask is None else mask[:, None, None]  # [b, 1, 1, m]
        return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=there))  # [b, n, d]


class FeedForward(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution, GELU, 1x1 convolution (LocalViT, Li et al., 2021).

    The 1x1 convolutions are written as linear layers on tokens: the same numbers.
    """

    def __init__(self, width: int, multiplier: int) -> None:
        super().__init__()
        hidden = width * multiplier
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])

        x = self.expand(x)  # [b, n, hidden]
        x = x.transpose(1, 2).unflatten(2, (side, side))  # [b, hidden, s, s]
        x = F.gelu(self.depthwise(x))  # [b, hidden, s, s]
        x = x.flatten(2).transpose(1, 2)  # [b, n, hidden]
        out: Tensor = self.contract(x)  # [b, n, d]
        return out


class Block(nn.Module):
    """Pre-norm transformer block: self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, mlp_multiplier: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = SelfAttention(width)
        self.cross_attention = CrossAttention(width)
        self.feed_forward = FeedForward(width, mlp_multiplier)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attention(self.norm1(x))  # [b, n, d]
        x = x + self.cross_attention(self.norm2(x), condition, mask)  # [b, n, d]
        x = x + self.feed_forward(self.norm3(x))  # [b, n, d]
        return x


def split_heads(x: Tensor) -> Tensor:
    """[b, n, d] -> [b, h, n, k]"""
    b, n, d = x.shape
    return x.view(b, n, d // HEAD_WIDTH, HEAD_WIDTH).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b, h, n, k] -> [b, n, d]"""
    return x.transpose(1, 2).flatten(2)
