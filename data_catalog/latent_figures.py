"""Figures of latents: how they relate to pixels, how they are stored, and their statistics."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from data_catalog.storage.manifest import StoredValues

ByChannel = float | tuple[float, ...]  # one number for all channels of a latent, or one for each


class CodecFigures(StoredValues):
    """How the VAE's latents relate to pixels."""

    scaling_factor: ByChannel
    """Scaled latents are (raw latents - shift) * scaling_factor."""
    shift: ByChannel
    """In units of raw latents."""
    latent_channels: int
    """Channels of a latent."""
    downscale: int
    """Pixels per latent value, along one side."""
    patch: int | None = None
    """Side of the patches of the VAE's own latents that became channels of raw latents; None
    without patches."""


class RoundTrip(StoredValues):
    """An image that was encoded, stored and decoded again."""

    key: str
    """The pair."""
    caption: str
    """Its main caption."""
    psnr: float
    """Peak signal-to-noise ratio of what came back, dB; at most 100."""


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
