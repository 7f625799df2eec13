"""The denoiser: noisy latent + noise level + text -> clean latent. It knows neither noise schedules
nor data.

b batch   c latent channels   y, x latent height and width   n tokens   d width   p patch size   t text width
l text tokens   r rows of tokens   s tokens in a row
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tld_model.config import DenoiserConfig
from tld_model.layers import Block, NoiseEmbedding


class Denoiser(nn.Module):
    """A latent diffusion transformer whose result is the clean latent (x0), after the architecture
    of apapiu/transformer_latent_diffusion: two condition tokens (noise level, text) enter every
    block by cross-attention. With token-level text there are 1 + l of them.

    An all-zero text embedding means "absent", in both forms: a pooled one is "no condition"; of
    token-level text a zero token is padding, which no one attends to, and zeros alone are "no
    condition"."""

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
        self.position: nn.Parameter | None = None
        if config.positions == "learned":
            self.position = nn.Parameter(torch.randn(config.tokens, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = nn.Linear(width, config.patch_dim)
        if config.inpainting:
            # With patchify one convolution over 2c+1 channels, written as two so that a base's
            # weights fit as they are. Its zeros make the variant give the base's predictions until
            # it is trained.
            self.patchify_known = nn.Conv2d(
                c + 1, config.patch_dim, kernel_size=p, stride=p, bias=False
            )
            nn.init.zeros_(self.patchify_known.weight)

    def forward(
        self, noisy: Tensor, sigma: Tensor, text: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Predict clean latents [b, c, y, x] from noisy ones [b, c, y, x], noise levels [b] in [0,
        1] and pooled text embeddings [b, t], or token-level ones [b, l, t]; an inpainting model
        also from the known part of the picture [b, c+1, y, x] (inpainting.known_part), of which
        None is nothing known. Latents of another height or width than the model was trained on get
        interpolated positions; p divides both."""
        rows = noisy.shape[2] // self.config.patch_size
        tokens, mask = self._text_tokens(text)  # [b, l, d], [b, 1 + l]
        condition = torch.cat(
            [self.noise_embedding(sigma)[:, None], tokens], dim=1
        )  # [b, 1 + l, d]
        condition = self.condition_norm(condition)  # [b, 1 + l, d]

        x = self.patchify(noisy)  # [b, c*p*p, r, s]
        if known is not None:
            x = x + self.patchify_known(known)  # [b, c*p*p, r, s]
        x = self.embed(x.flatten(2).transpose(1, 2))  # [b, n, d]
        if self.position is not None:
            x = x + resize_positions(self.position, rows, x.shape[1] // rows)  # [b, n, d]
        for block in self.blocks:
            x = block(x, condition, mask, rows)  # [b, n, d]
        out = self._unpatchify(self.head(x), rows)  # [b, c, y, x]
        if self.config.predicts == "v":
            return (
                noisy - sigma[:, None, None, None].to(noisy.dtype) * out
            )  # x0 = x_sigma - sigma v
        return out

    def compile_blocks(self) -> None:
        """Have torch compile the blocks, at their first call, in place: names of weights stay as
        they are. Blocks are alike, so one compilation serves all."""
        for block in self.blocks:
            block.compile()

    def _text_tokens(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Condition tokens of the text, and which of all condition tokens are there; None where all
        are."""
        if self.config.text == "pooled":
            return self.text_projection(text)[:, None], None  # [b, 1, d]
        present = text.any(dim=2)  # [b, l]
        return self.text_projection(text), F.pad(
            present, (1, 0), value=True
        )  # the noise level always is

    def _unpatchify(self, x: Tensor, rows: int) -> Tensor:
        """[b, n, c*p*p] -> [b, c, y, x]"""
        c, p = self.config.latent_channels, self.config.patch_size

        x = x.unflatten(2, (c, p, p)).unflatten(1, (rows, -1))  # [b, r, s, c, p, p]
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def resize_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Learned positions [n, d] of a square -> [r*s, d], bicubic (Dosovitskiy et al., 2021, section
    3.2, interpolate so where images grow)."""
    side = math.isqrt(len(positions))
    if (rows, columns) == (side, side):
        return positions
    square = positions.T.unflatten(1, (side, side))[None]  # [1, d, side, side]
    return F.interpolate(square, (rows, columns), mode="bicubic").flatten(2)[0].T
