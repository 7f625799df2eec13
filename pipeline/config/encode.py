"""Encoding settings: the VAE, the CLIP model, and how latents are quantized and stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from pipeline.config.paths import TextPath
from pipeline.config.section import (
    NotInFingerprint,
    Section,
    SpeedOnly,
    SpeedOnlyUpToRounding,
)
from tld_model.config import TextForm


class EncodeConfig(Section):
    """images -> encodings"""

    vae: TextPath = "madebyollin/sdxl-vae-fp16-fix"
    """Autoencoder (VAE): a folder, a Hugging Face model name, or 'shapes-vae', which ships with
    the project."""
    clip: TextPath = "openai/clip-vit-large-patch14"
    """CLIP model and tokenizer: a folder, a Hugging Face model name, or 'shapes-clip', which ships
    with the project."""
    text: TextForm = "pooled"
    """Which text embeddings to store. 'pooled': one vector per caption. 'tokens': in addition one
    vector per token, for model.text=tokens; CLIP ViT-L/14 needs 1.5 kB per token."""
    posterior: Literal["mean", "sample"] = "mean"
    """'mean' stores the mean of the VAE's posterior as the latent; 'sample' stores a sample from
    it, seeded by the pair's key."""
    latent_dtype: Literal["uint8", "float16"] = "uint8"
    """Number format of stored latents; float16 takes twice the space of uint8."""
    latent_clip: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 5.0
    """Largest latent value that uint8 can represent: one for all channels, or a list with one per
    channel. Scaled latents have a standard deviation of about 1; the manifest's figures give that
    of each channel."""
    min_clip_score: float | None = Field(None, ge=-100, le=100)
    """Leave out pairs with a lower CLIP score (100 * cosine similarity of image and caption), and
    list them with the reason."""
    keep_images: NotInFingerprint[bool] = True
    """'false' deletes each image shard once its encoded shard is finished. Does not change the
    encodings."""
    device: SpeedOnly[str] = "auto"
    """Device of the encoders: 'auto', 'cpu', 'cuda' or 'cuda:1'."""
    batch_size: SpeedOnlyUpToRounding[int] = Field(64, ge=1, le=65_536)
    """Images per batch. Another order of summation may change the last bit of a few stored numbers,
    which does not make an output stale."""
    workers: SpeedOnly[int] = Field(1, ge=1, le=4096)
    """Number of encoding processes; each loads its own copy of the models."""
