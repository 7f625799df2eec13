"""The denoiser: noisy latent + noise level + text -> clean latent. It knows neither noise schedules nor data.

b batch   c latent channels   z latent size   n tokens   d width   p patch size   t text width   l text tokens
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tld_model.config import DenoiserConfig
from tld_model.layers import Block, NoiseEmbedding


class Denoiser(nn.Module):
    """A latent diffusion transformer that predicts the clean latent (x0), after the architecture of
    apapiu/transformer_latent_diffusion: two condition tokens (noise level, text) enter every block by
    cross-attention. With token-level text there are 1 + l of them.

    An all-zero text embedding means "absent", in both forms: a pooled one is "no condition"; of token-level text a
    zero token is padding, which no one attends to, and zeros alone are "no condition"."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        c, p, width = config.latent_channels, config.patch_size, config.width
        self.noise_embedding = NoiseEmbedding(config.noise_embed_dim, width)
        self.text_projection = nn.Linear(config.text_dim, width)
        self.condition_norm = nn.LayerNorm(width)
        self.patchify = nn.Conv2d(c, config.patch_dim, kernel_size=p, stride=p)
        self.embed = nn.Sequential(
            nn.LayerNorm(config.patch_dim), nn.Linear(config.patch_dim, width), nn.LayerNorm(width)
        )
        self.position = nn.Parameter(torch.randn(config.tokens, width))
        self.blocks = nn.ModuleList(Block(width, config.mlp_multiplier) for _ in range(config.layers))
        self.head = nn.Linear(width, config.patch_dim)

    def forward(self, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Predict clean latents [b, c, z, z] from noisy ones [b, c, z, z], noise levels [b] in [0, 1]
        and pooled text embeddings [b, t], or token-level ones [b, l, t]."""
        tokens, mask = self._text_tokens(text)  # [b, l, d], [b, 1 + l]
        condition = torch.cat([self.noise_embedding(sigma)[:, None], tokens], dim=1)  # [b, 1 + l, d]
        condition = self.condition_norm(condition)  # [b, 1 + l, d]

        x = self.patchify(noisy).flatten(2).transpose(1, 2)  # [b, n, c*p*p]
        x = self.embed(x) + self.position  # [b, n, d]
        for block in self.blocks:
            x = block(x, condition, mask)  # [b, n, d]
        return self._unpatchify(self.head(x))  # [b, c, z, z]

    def _text_tokens(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Condition tokens of the text, and which of all condition tokens are there; None where all are."""
        if self.config.text == "pooled":
            return self.text_projection(text)[:, None], None  # [b, 1, d]
        there = text.any(dim=2)  # [b, l]
        return self.text_projection(text), F.pad(there, (1, 0), value=True)  # the noise level always is

    def _unpatchify(self, x: Tensor) -> Tensor:
        """[b, n, c*p*p] -> [b, c, z, z]"""
        c, p = self.config.latent_channels, self.config.patch_size
        side = self.config.latent_size // p

        x = x.unflatten(2, (c, p, p)).unflatten(1, (side, side))  # [b, s, s, c, p, p]
        return x.permute(0, 3, 1, 4, 2, 5).reshape(x.shape[0], c, side * p, side * p)
