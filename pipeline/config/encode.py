"""Encoding settings: the VAE, CLIP, the text encoder, and how their outputs are stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.paths import TextPath
from pipeline.config.section import (
    ChangesNoOutput,
    Section,
    SpeedOnly,
    SpeedOnlyUpToRounding,
)
from tld_model.config import StoredDtype, TextForm, TextSettings


class EncodeConfig(Section):
    """images -> encodings"""

    vae: TextPath = "madebyollin/sdxl-vae-fp16-fix"
    """Autoencoder (VAE): a folder, a Hugging Face model name, or one that ships with the project:
    'shapes-vae', or 'emoji-vae' for small drawings on white. Its class in diffusers is
    AutoencoderKL, AutoencoderTiny, AutoencoderDC or AutoencoderKLFlux2. A name may end in
    @REVISION: a commit, which never changes, a tag or a branch. So may those of clip and
    text_encoder."""
    clip: TextPath | None = "openai/clip-vit-large-patch14"
    """CLIP model and tokenizer: a folder, a Hugging Face model name, or 'shapes-clip', which ships
    with the project. null, with a text_encoder, leaves out CLIP scores and all that is computed
    with CLIP."""
    text_encoder: TextPath | None = None
    """Text encoder and tokenizer: a folder or a Hugging Face model name of a CLIP, a T5, an encoder
    such as BERT, or a decoder-only language model. null is the text tower of clip."""
    text: TextForm = "pooled"
    """Which text embeddings to store. 'pooled': one vector per caption. 'tokens': in addition one
    vector per token, for model.text=tokens; CLIP ViT-L/14 needs 770 bytes per token."""
    text_layer: int | None = Field(None, ge=-1000, le=1000)
    """Layer of the text encoder whose hidden states are the token states: 1 for the first, -1 for
    the last, -2 for the one before. null is the model's output, behind its last norm. Of models
    other than CLIP, pooled embeddings are computed from the same states."""
    text_tokens: int | None = Field(None, ge=4, le=65_536)
    """Longest caption in tokens; longer ones are truncated. null is what the text encoder takes,
    but of models other than CLIP at most 256."""
    text_template: str = Field("{}", max_length=10_000)
    """Text to encode of each caption, which takes the place of {}, for example 'query: {}'."""
    token_dtype: StoredDtype = "uint8"
    """Number format of stored token states: 'uint8' with a scale for each token, or float16, which
    takes twice the space."""
    posterior: Literal["mean", "sample", "spread"] = "mean"
    """'mean' stores the mean of the VAE's posterior as the latent; 'sample' stores a sample from
    it, seeded by the pair's key; 'spread' stores the mean and the standard deviation, one byte a
    value more, and each step of the training takes new samples. AutoencoderTiny and AutoencoderDC
    have no posterior but only 'mean'."""
    flips: bool = False
    """Store the latent of the mirrored image too, in twice the space of latents. Training then
    takes one of the two for each pair and epoch; held-out pairs are never mirrored. Captions stay
    as they are, so leave it off where they say left or right, or where lettering matters."""
    latent_dtype: StoredDtype = "uint8"
    """Number format of stored latents; float16 takes twice the space of uint8."""
    latent_clip: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 5.0
    """Largest latent value that uint8 can represent: one for all channels, or a list with one per
    channel. Scaled latents have a standard deviation of about 1; the manifest's figures give that
    of each channel."""
    min_clip_score: float | None = Field(None, ge=-100, le=100)
    """Leave out pairs with a lower CLIP score (100 * cosine similarity of image and caption), and
    list them with the reason."""
    keep_images: ChangesNoOutput[bool] = True
    """'false' deletes each image shard once its encoded shard is finished."""
    device: SpeedOnly[str] = "auto"
    """Device of the encoders: 'auto', 'cpu', 'cuda' or 'cuda:1'."""
    batch_size: SpeedOnlyUpToRounding[int] = Field(64, ge=1, le=65_536)
    """Images per batch. Another order of summation may change the last bit of a few stored numbers,
    which does not make an output stale."""
    workers: SpeedOnly[int] = Field(1, ge=1, le=4096)
    """Number of encoding processes; each loads its own copy of the models."""

    @property
    def text_settings(self) -> TextSettings:
        """What is chosen of the text encoder beside the model."""
        return TextSettings(self.text_layer, self.text_tokens, self.text_template)

    @property
    def text_model(self) -> str:
        """The model that encodes the captions."""
        return self.text_encoder or self.clip or ""

    @property
    def encodes_with_clip(self) -> bool:
        """Whether the text tower of clip encodes the captions as it is."""
        return self.text_encoder is None and self.text_settings == TextSettings()

    @property
    def named_encoders(self) -> dict[str, str]:
        """Setting -> name of all models that are set."""
        named = {"vae": self.vae, "clip": self.clip, "text_encoder": self.text_encoder}
        return {setting: name for setting, name in named.items() if name}

    @property
    def encoders(self) -> list[str]:
        """The names of all models."""
        return list(self.named_encoders.values())

    @field_validator("text_layer")
    @classmethod
    def _layers_have_numbers(cls, layer: int | None) -> int | None:
        if layer == 0:
            raise ValueError("is 0, but layers count from 1, or from -1 backwards")
        return layer

    @field_validator("text_template")
    @classmethod
    def _caption_has_a_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("needs {} once, where the caption goes")
        return template

    @model_validator(mode="after")
    def _clip_may_be_missing(self) -> EncodeConfig:
        if not self.text_model:
            raise ValueError("clip is null, so captions need a text_encoder")
        if not self.clip and self.min_clip_score is not None:
            raise ValueError("min_clip_score needs a clip, which is null")
        return self
