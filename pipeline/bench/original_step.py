"""A training step of apapiu/transformer_latent_diffusion, the original project, to compare ours
with.

The code is ours; it does what that repository's does:

- tld/transformer_blocks.py: 1x1 and depthwise convolutions on the tokens as an image, attention by
  torch, layer norms before each branch. tld/denoiser.py: patches, embeddings and head. The names of
  the weights are theirs (tld_model/original_layouts.py). einops and accelerate are written out.
- tld/train.py: fp16 autocast with loss scaling, the plain squared error, whose value the host waits
  for before the backward pass, Adam, and an average that is updated weight by weight. No clipping.

What differs: accelerate refuses fp16 on a CPU, so there the arithmetic is that of our step. Nothing
is compiled, which tld/train.py does unless told not to. The noise levels, the noise and the dropped
captions are ours, drawn before, as they are for our step, and the noise is mixed in fp32, not fp64.
On a GPU, TF32 is on and cuDNN's attention off, as for our step.

b batch   c latent channels   y, x latent height and width   n tokens   d width   p patch size
t text width   h heads   k width of a head   r rows of tokens   s tokens in a row   f features
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.compute.devices import autocast
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loss import StepRandomness
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.diffusion import add_noise, drop_condition
from tld_model.layers import HEAD_WIDTH
from tld_model.original_layouts import to_layout

_EMA_DECAY = 0.999


class OriginalTraining:
    """A training by the original project's steps that starts with the weights of our denoiser.
    Raises CheckpointError if the denoiser has another architecture."""

    def __init__(self, denoiser: Denoiser, config: TrainConfig, device: str) -> None:
        network = OriginalDenoiser(denoiser.config)
        network.load_state_dict(to_layout(denoiser.state_dict(), denoiser.config, "main"))
        self.network = network.to(device).train()
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr)
        self.device, self.precision = device, config.precision
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.startswith("cuda"))

    def step(self, batch: Batch, choices: StepRandomness) -> float:
        """Train one step. Returns the loss."""
        noisy = add_noise(batch.latents, choices.noise, choices.sigma)
        text = drop_condition(batch.text, choices.dropped)
        self.optimizer.zero_grad()
        with self._autocast():
            predicted = self.network(noisy, choices.sigma, text)
        loss = F.mse_loss(predicted.float(), batch.latents)
        value = loss.item()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        return value

    def _autocast(self) -> AbstractContextManager[torch.autocast | None]:
        if self.device.startswith("cuda"):
            return torch.autocast("cuda", torch.float16)
        return autocast(self.device, self.precision)

    @torch.no_grad()
    def _update_average(self) -> None:
        networks = self.average, self.network
        for average, weight in zip(*(n.parameters() for n in networks), strict=True):
            average.mul_(_EMA_DECAY).add_(weight, alpha=1 - _EMA_DECAY)


class OriginalDenoiser(nn.Module):
    """The denoiser as the original project writes it."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        features, width = config.noise_embed_dim, config.width
        self.fourier_feats = nn.Sequential(
            _FourierFeatures(features),
            nn.Linear(features, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.denoiser_trans_block = _OriginalTransformer(config)
        self.norm = nn.LayerNorm(width)
        self.label_proj = nn.Linear(config.text_dim, width)

    def forward(self, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Predict clean latents [b, c, y, x] from noisy ones, noise levels [b] and text [b, t]."""
        noise_token = self.fourier_feats(sigma[:, None])[:, None]  # [b, 1, d]
        text_token = self.label_proj(text)[:, None]  # [b, 1, d]
        condition = self.norm(torch.cat([noise_token, text_token], dim=1))  # [b, 2, d]
        clean: Tensor = self.denoiser_trans_block(noisy, condition)  # [b, c, y, x]
        return clean


class _FourierFeatures(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("angular_speeds", torch.zeros(features // 2))
        self.angular_speeds: Tensor

    def forward(self, sigma: Tensor) -> Tensor:
        phase = self.angular_speeds * sigma  # [b, f/2]
        return torch.cat([phase.sin(), phase.cos()], dim=-1)  # [b, f]


class _OriginalTransformer(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        c, p, patch = config.latent_channels, config.patch_size, config.patch_dim
        self.patchify_and_embed = nn.Sequential(
            nn.Conv2d(c, patch, kernel_size=p, stride=p),
            _ImageToTokens(),
            nn.LayerNorm(patch),
            nn.Linear(patch, config.width),
            nn.LayerNorm(config.width),
        )
        self.pos_embed = nn.Embedding(config.tokens, config.width)
        self.register_buffer("precomputed_pos_enc", torch.arange(config.tokens))
        self.precomputed_pos_enc: Tensor
        self.decoder_blocks = nn.ModuleList(_OriginalBlock(config) for _ in range(config.layers))
        self.out_proj = nn.Sequential(nn.Linear(config.width, patch), _TokensToLatent(c, p))

    def forward(self, noisy: Tensor, condition: Tensor) -> Tensor:
        x = self.patchify_and_embed(noisy)  # [b, n, d]
        x = x + self.pos_embed(self.precomputed_pos_enc.expand(len(x), -1))  # [b, n, d]
        for block in self.decoder_blocks:
            x = block(x, condition)  # [b, n, d]
        clean: Tensor = self.out_proj(x)  # [b, c, y, x]
        return clean


class _OriginalBlock(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        qkv, kv, q = (nn.Linear(width, parts * width, bias=False) for parts in (3, 2, 1))
        self.self_attention = nn.ModuleDict({"qkv_linear": qkv})
        self.cross_attention = nn.ModuleDict({"kv_linear": kv, "q_linear": q})
        self.mlp = _ConvolutionalMlp(width, width * config.mlp_multiplier)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        q, k, v = self.self_attention["qkv_linear"](self.norm1(x)).chunk(3, dim=2)
        x = _attention(q, k, v) + x  # [b, n, d]
        q = self.cross_attention["q_linear"](self.norm2(x))  # [b, n, d]
        k, v = self.cross_attention["kv_linear"](condition).chunk(2, dim=2)  # each [b, 2, d]
        x = _attention(q, k, v) + x  # [b, n, d]
        x = self.mlp(self.norm3(x)) + x  # [b, n, d]
        return x


class _ConvolutionalMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1, padding="same"),
            nn.Conv2d(hidden, hidden, kernel_size=3, padding="same", groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, width, kernel_size=1, padding="same"),
        )

    def forward(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])
        x = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [b, d, r, s]
        x = self.mlp(x)  # [b, d, r, s]
        return x.permute(0, 2, 3, 1).flatten(1, 2)  # [b, n, d]


class _ImageToTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1, 2)  # [b, n, c*p*p]


class _TokensToLatent(nn.Module):
    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch = (channels, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])
        x = x.unflatten(2, self.patch).unflatten(1, (side, side))  # [b, r, s, c, p, p]
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # [b, c, y, x]


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(2, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (q, k, v))  # [b, h, n, k]
    out = F.scaled_dot_product_attention(q, k, v)  # [b, h, n, k]
    return out.transpose(1, 2).flatten(2)  # [b, n, d]
