"""A transformer block with joint attention: to the image's tokens and to the condition, in one.

b batch   n tokens   m condition tokens   d width   h heads   k width of a head   r rows of tokens
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tld_model.config import DenoiserConfig
from tld_model.layers import FeedForward, attend, head_norm, merge_heads, split_heads


class JointAttention(nn.Module):
    """Attention from every token to all tokens and to the condition tokens, under one softmax, then
    a projection. Keys and values of the condition have weights of their own (GLIDE, Nichol et al.,
    2022, section 4.1; Imagen, Saharia et al., 2022). A mask, bool [b, m], selects the condition
    tokens."""

    def __init__(self, width: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.condition_kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_q, self.norm_k, self.norm_condition_k = (
            head_norm(enabled=qk_norm) for _ in range(3)
        )

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(part) for part in self.qkv(x).chunk(3, dim=-1))  # each [b, h, n, k]
        # each [b, h, m, k]
        of_condition, values = (
            split_heads(part) for part in self.condition_kv(condition).chunk(2, dim=-1)
        )
        keys = torch.cat([self.norm_condition_k(of_condition), self.norm_k(k)], dim=2)
        values = torch.cat([values, v], dim=2)  # each [b, h, m + n, k]
        if mask is not None:
            mask = F.pad(mask, (0, x.shape[1]), value=True)[:, None, None]  # [b, 1, 1, m + n]
        out: Tensor = self.out(merge_heads(attend(self.norm_q(q), keys, values, mask)))
        return out  # [b, n, d]


class JointBlock(nn.Module):
    """Joint attention and feed-forward, with a layer norm before each. Tokens form a square unless
    a number of rows is given."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.width) for _ in range(2))
        self.attention = JointAttention(config.width, qk_norm=config.qk_norm)
        self.feed_forward = FeedForward(config.width, config.mlp_multiplier)

    def forward(
        self, x: Tensor, condition: Tensor, mask: Tensor | None = None, rows: int | None = None
    ) -> Tensor:
        x = x + self.attention(self.norm1(x), condition, mask)  # [b, n, d]
        x = x + self.feed_forward(self.norm2(x), rows)  # [b, n, d]
        return x
