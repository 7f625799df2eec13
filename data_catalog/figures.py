"""Figures of the stages: what a manifest and its receipts say of images, encodings, model, report.

A stage builds these models and dumps them; readers take them by `EncodingsFigures.of(manifest)`.
Names and order of the fields are those on disk. A new field needs a default that means "as before".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from data_catalog.row_counts import Account
from data_catalog.storage.manifest import Figures, StoredValues
from data_catalog.text_figures import TextFigures, TokenStatistics, TokenSums

# A number that may be NaN, for which JSON has null.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
ByChannel = float | tuple[float, ...]  # one number for all channels of a latent, or one for each


class ImagesFigures(Figures):
    """Figures of the images of a download."""

    account: Account
    """What became of the rows of the table."""
    may_pass: int
    """Rows that failed for a transient reason, so that trying again may help."""
    bytes: int
    """Size of all files."""
    images_per_s: float
    """Images per second, in the last run of the stage."""
    unused_captions: int | None = None
    """Captions of the table of captions whose key no row has; None without such a table."""


class ImageShardFigures(Figures):
    """Figures of one shard of images."""

    failed: dict[str, int]
    """Cause -> rows whose download failed."""


class EncoderNames(StoredValues):
    """The encoders of an output."""

    vae: str
    """Name or folder of the VAE."""
    clip: str | None = None
    """Name or folder of the CLIP model; None if there was none."""
    vae_identity: str
    """What distinguishes this VAE from others, whatever its name."""
    clip_identity: str | None = None
    """What distinguishes this CLIP model from others, whatever its name."""
    text: TextFigures | None = None
    """The text encoder; None if it was CLIP's text tower as it is."""

    @property
    def text_model(self) -> str:
        """Name or folder of the model that encoded the captions."""
        return self.text.name if self.text else self.clip or ""


class CodecFigures(StoredValues):
    """How the VAE's latents relate to pixels."""

    scaling_factor: float
    """Scaled latents are (raw latents - shift) * scaling_factor."""
    shift: float
    """In units of raw latents."""
    latent_channels: int
    """Channels of a latent."""
    downscale: int
    """Pixels per latent value, along one side."""


class QuantizationFigures(StoredValues):
    """How stored latents become scaled latents: (stored - zero_point) * scale for uint8; float16 is
    stored unchanged."""

    dtype: Literal["uint8", "float16"] = "uint8"
    """Number format of the stored latents."""
    scale: ByChannel
    """Width of one level of uint8, in units of scaled latents."""
    clip: ByChannel
    """Largest scaled latent that uint8 can represent."""
    zero_point: int
    """The uint8 that stands for 0."""


class LatentStatistics(StoredValues):
    """Statistics of scaled latents, of their quantization error, and of the CLIP score."""

    quantization_rmse: float
    """Root mean square error of the stored latents, in units of scaled latents."""
    quantization_rmse_sigma: float
    """The same in units of the latents' standard deviation."""
    clipped_fraction: float
    """Fraction of the values that are beyond the range of the quantization."""
    latent_mean: float
    """Mean of all values."""
    latent_std: float
    """Standard deviation of all values."""
    channel_std: tuple[float, ...]
    """Standard deviation of each channel."""
    channel_largest: tuple[float, ...]
    """Largest absolute value of each channel."""
    clip_score: float | None = None
    """Mean of 100 x cosine of the CLIP embeddings of image and caption; None without CLIP."""


class LatentSums(StoredValues):
    """Sums over the pairs of a shard, from which the statistics of any number of shards follow. Of
    a shard without pairs only `rows` is stored."""

    latent: tuple[float, ...] = ()
    """Of the mean of a latent, for each channel."""
    latent_squared: tuple[float, ...] = ()
    """Of the mean square of a latent, for each channel."""
    squared_error: float = 0.0
    """Of the mean square error of a stored latent."""
    clipped: float = 0.0
    """Of the fraction of a latent's values beyond the range."""
    clip_score: float | None = None
    """Of the CLIP score; None without CLIP."""
    rows: int
    """Pairs."""
    largest: tuple[float, ...] = ()
    """The largest absolute value of each channel; no sum."""

    @model_serializer(mode="wrap")
    def _without_sums_of_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return dict(dump(self)) if self.rows else {"rows": 0}


class EncodingsFigures(Figures):
    """Figures of the encodings of all images."""

    spread: ClassVar[str] = "statistics"

    encoders: EncoderNames
    """The models that encoded images and captions."""
    codec: CodecFigures
    """How the VAE's latents relate to pixels."""
    posterior: str
    """mean or sample: which value of the VAE's posterior is the latent."""
    quantization: QuantizationFigures
    """How the latents are stored."""
    quantization_bound: float
    """Largest error of a value within the range, in units of scaled latents."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of a latent."""
    text_dim: int
    """Width of a pooled text embedding."""
    caption_columns: tuple[str, ...] | None = None
    """Caption columns of the table, the main one first; None if there is only the main one."""
    captions: int | None = None
    """Captions of all pairs; None if each has one."""
    token_dim: int | None = None
    """Width of a token's embedding; None if only pooled text is stored."""
    longest_caption: int | None = None
    """Tokens of the longest caption; None if only pooled text is stored."""
    token_statistics: TokenStatistics | None = None
    """The error of stored token states."""
    account: Account
    """What became of the rows of the table."""
    statistics: LatentStatistics
    """Statistics of all pairs."""

    @model_validator(mode="before")
    @classmethod
    def _gather_statistics(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        return stored if "statistics" in stored else {**stored, "statistics": stored}


class EncodedShardFigures(Figures):
    """Figures of one shard of encodings."""

    spread: ClassVar[str] = "statistics"

    statistics: LatentStatistics | None = None
    """Statistics of the shard's pairs; None if it has none."""
    sums: LatentSums
    """What the statistics follow from."""
    dropped: dict[str, int]
    """Reason -> pairs that were left out."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of a latent."""
    text_dim: int
    """Width of a pooled text embedding."""
    captions: int | None = None
    """Captions of all pairs; None if each has one."""
    token_dim: int | None = None
    """Width of a token's embedding; None if only pooled text is stored."""
    longest_caption: int | None = None
    """Tokens of the longest caption; None if only pooled text is stored."""
    token_sums: TokenSums | None = None
    """What the error of stored token states follows from."""
    text: TextFigures | None = None
    """As in EncoderNames."""
    codec: CodecFigures
    """How the VAE's latents relate to pixels."""

    @model_validator(mode="before")
    @classmethod
    def _gather_statistics(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        flat = "statistics" not in stored and "latent_mean" in stored
        return {**stored, "statistics": stored} if flat else stored


class ModelFigures(Figures):
    """Figures of a trained model."""

    spread: ClassVar[str] = "losses"

    train_pairs: int
    """Pairs to train on."""
    held_out_pairs: int
    """Pairs held out of training."""
    steps: int
    """Training steps."""
    parameters: int
    """Parameters of the denoiser."""
    losses: dict[str, Number]
    """Mean squared errors of the clean latent on held-out pairs: `held_out_loss` over all noise
    levels, `held_out_loss/0.0-0.2` and so on by noise level."""

    @model_validator(mode="before")
    @classmethod
    def _gather_losses(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        losses = {name: loss for name, loss in stored.items() if name.startswith("held_out_loss")}
        return stored if "losses" in stored else {**stored, "losses": losses}


class ReportFigures(Figures):
    """Figures of an evaluation."""

    scores: dict[str, Number]
    """Name -> value; data_catalog/scores.py says what they mean."""
    intervals: dict[str, tuple[Number, Number]] = Field({})
    """Name -> ends of the 95 % interval of the score, where it has one."""
    timing: dict[str, float] = Field({})
    """Seconds of an image: `latency_s` alone, `seconds_a_picture` in batches. They differ from run
    to run, so the digest leaves them out."""
