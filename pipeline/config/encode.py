"""Settings of the encoding: which VAE and CLIP, and how latents are quantized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from pipeline.config.paths import TextPath
from pipeline.config.section import Section
from tld_model.config import TextForm


class EncodeConfig(Section):
    """images -> encodings"""

    vae: TextPath = "madebyollin/sdxl-vae-fp16-fix"
    """Autoencoder: a folder, a Hugging Face name, or 'shapes-vae', which ships with the project."""
    clip: TextPath = "openai/clip-vit-large-patch14"
    """CLIP model and tokenizer: a folder, a Hugging Face name, or 'shapes-clip', which ships with
    the project."""
    text: TextForm = "pooled"
    """'tokens' stores beside the pooled embedding of a caption the states of its tokens, for
    model.text=tokens: for CLIP ViT-L/14 1.5 kB a token."""
    posterior: Literal["mean", "sample"] = "mean"
    """Latents are the mean of the VAE's posterior, or a draw from it, seeded by the key."""
    latent_dtype: Literal["uint8", "float16"] = "uint8"
    """How latents are stored; float16 takes twice the space."""
    latent_clip: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 5.0
    """Largest latent value that uint8 holds: one for all channels, or a list with one for each
    channel; the manifest's figures say how far each spreads. Scaled latents have a spread of about
    1."""
    min_clip_score: float | None = Field(None, ge=-100, le=100)
    """Pairs whose picture and caption agree less (100 * cosine of CLIP) are left out, and listed
    with the reason."""
    keep_images: bool = True
    """'false' deletes an image shard once its encoded shard is finished. Does not change the
    encodings."""
    device: str = "auto"
    """'auto', 'cpu', 'cuda', 'cuda:1'. Changes speed only."""
    batch_size: int = Field(64, ge=1, le=65_536)
    """Pictures at once. Changes speed only, up to rounding: sums in another order may turn the last
    bit of a few stored numbers, which no manifest calls stale."""
    workers: int = Field(1, ge=1, le=4096)
    """Processes, each with models of its own. Changes speed only."""
