"""The denoiser, a diffusion transformer: noisy latent + noise level + text -> clean latent.

b batch   c latent channels   y, x latent height and width   n tokens   d width   p patch size
t text width   l text tokens   r rows of tokens   s tokens in a row
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tld_model.config import DenoiserConfig
from tld_model.joint_block import JointBlock
from tld_model.layers import Block, FeedForward, FusedDepthwise, NoiseEmbedding


class Denoiser(nn.Module):
    """A latent diffusion transformer that predicts the clean latent (x0).

    The architecture follows apapiu/transformer_latent_diffusion: two condition tokens (noise level
    and text) enter every block by cross-attention, or by joint attention (config.blocks). With
    token-level text there are 1 + l condition tokens.

    A text embedding of zeros means "no condition". In token-level text a zero token is padding, to
    which no token attends, and only zeros mean "no condition".

    With `recomputes_blocks`, only the input of each block is kept for the backward pass, which
    computes the block again (Chen et al., 2016, "Training deep nets with sublinear memory cost").
    """

    recomputes_blocks = False

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
        block = Block if config.blocks == "original" else JointBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.head = nn.Linear(width, config.patch_dim)
        if config.inpainting:
            # Together with patchify this is one convolution over 2c+1 channels, written as two so
            # that the weights of a base model fit as they are. Because of its zeros the model gives
            # the predictions of the base model until it is trained.
            self.patchify_known = nn.Conv2d(
                c + 1, config.patch_dim, kernel_size=p, stride=p, bias=False
            )
            nn.init.zeros_(self.patchify_known.weight)

    def forward(
        self, noisy: Tensor, sigma: Tensor, text: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Predict clean latents [b, c, y, x] from noisy latents [b, c, y, x], noise levels [b] in
        [0, 1], also from the CPU, and text embeddings, pooled [b, t] or token-level [b, l, t].

        An inpainting model also takes the known part of the image [b, c+1, y, x]
        (inpainting.known_part); None means that nothing is known. For latents of another height or
        width than in training, position embeddings are interpolated; p must divide both.
        """
        rows = noisy.shape[2] // self.config.patch_size
        sigma = sigma.to(noisy.device, non_blocking=True)  # [b]
        tokens, mask = self._text_tokens(text)  # [b, l, d], [b, 1 + l]
        noise_token = self.noise_embedding(sigma)[:, None]  # [b, 1, d]
        condition = torch.cat([noise_token, tokens], dim=1)  # [b, 1 + l, d]
        condition = self.condition_norm(condition)  # [b, 1 + l, d]

        x = self.patchify(noisy)  # [b, c*p*p, r, s]
        if known is not None:
            x = x + self.patchify_known(known)  # [b, c*p*p, r, s]
        x = self.embed(x.flatten(2).transpose(1, 2))  # [b, n, d]
        if self.position is not None:
            x = x + resize_positions(self.position, rows, x.shape[1] // rows)  # [b, n, d]
        for block in self.blocks:
            x = self._through(block, x, condition, mask, rows)  # [b, n, d]
        out = self._unpatchify(self.head(x), rows)  # [b, c, y, x]
        if self.config.predicts == "v":
            # x0 = x_sigma - sigma v
            return noisy - sigma[:, None, None, None].to(noisy.dtype) * out
        return out

    def compile_blocks(self) -> None:
        """Let torch compile the blocks in place at their first call, so that the names of weights
        stay the same. All blocks have the same code, so one compilation serves all of them."""
        for block in self.blocks:
            block.compile()

    def fuse_depthwise(self, fused: FusedDepthwise) -> None:
        """From now on, compute each depthwise convolution with its GELU by this function, which may
        differ from torch's layers by rounding."""
        for layer in self.modules():
            if isinstance(layer, FeedForward):
                layer.fused = fused

    def _through(
        self, block: nn.Module, x: Tensor, condition: Tensor, mask: Tensor | None, rows: int
    ) -> Tensor:
        """The block's output [b, n, d]."""
        if not self.recomputes_blocks:
            out: Tensor = block(x, condition, mask, rows)
            return out
        # Blocks draw no random numbers, so there is no state of a generator to restore.
        out = checkpoint(
            block, x, condition, mask, rows, use_reentrant=False, preserve_rng_state=False
        )
        return out

    def _text_tokens(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """The condition tokens of the text, and a mask of all condition tokens that is true where a
        token is present, or None if all are."""
        if self.config.text == "pooled":
            return self.text_projection(text)[:, None], None  # [b, 1, d]
        present = text.any(dim=2)  # [b, l]
        mask = F.pad(present, (1, 0), value=True)  # the token of the noise level is always present
        return self.text_projection(text), mask

    def _unpatchify(self, x: Tensor, rows: int) -> Tensor:
        """[b, n, c*p*p] -> [b, c, y, x]"""
        c, p = self.config.latent_channels, self.config.patch_size

        x = x.unflatten(2, (c, p, p)).unflatten(1, (rows, -1))  # [b, r, s, c, p, p]
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def resize_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Resize the learned positions [n, d] of a square to [r*s, d] by bicubic interpolation, as
    Dosovitskiy et al. (2021, section 3.2) do for larger images."""
    side = math.isqrt(len(positions))
    if (rows, columns) == (side, side):
        return positions
    square = positions.T.unflatten(1, (side, side))[None]  # [1, d, side, side]
    return F.interpolate(square, (rows, columns), mode="bicubic").flatten(2)[0].T
