"""Figures of the stages: what a manifest and its receipts say of images, encodings, model, report.

A stage builds these models and dumps them; readers take them by `EncodingsFigures.of(manifest)`.
Names and order of the fields are those on disk. A new field needs a default that means "as before".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from data_catalog.latent_figures import (
    CodecFigures,
    LatentStatistics,
    LatentSums,
    QuantizationFigures,
    RoundTrip,
)
from data_catalog.mix_figures import MixedSetFigures, mix_in_words
from data_catalog.row_counts import Account
from data_catalog.storage.manifest import Figures, StoredValues
from data_catalog.text_figures import TextFigures, TokenStatistics, TokenSums

TEACHER_ERROR = "teacher_error"
# A number that may be NaN, for which JSON has null.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


class ImagesFigures(Figures):
    """Figures of the images of a download."""

    account: Account
    """What became of the rows of the input."""
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


class EncodingsFigures(Figures):
    """Figures of the encodings of all images."""

    spread: ClassVar[str] = "statistics"

    encoders: EncoderNames
    """The models that encoded images and captions."""
    codec: CodecFigures
    """How the VAE's latents relate to pixels."""
    posterior: str
    """mean, sample or spread: which value of the VAE's posterior is the latent. With spread it is
    the mean, and the standard deviation is stored too."""
    flips: bool | None = None
    """Whether the latents of mirrored images are stored too; None if not."""
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
    """What became of the rows of the input."""
    round_trip_psnr: float | None = None
    """Mean PSNR of a few images after encoding, storing and decoding, dB; None of outputs that
    began before 0.2."""
    round_trip_psnr_min: float | None = None
    """The least of them, dB."""
    statistics: LatentStatistics
    """Statistics of all pairs."""

    @property
    def round_trips(self) -> str:
        """What the VAE leaves of images, as a line; "" if it was not measured."""
        if self.round_trip_psnr is None:
            return ""
        return (
            f"images after the VAE's round trip: PSNR {self.round_trip_psnr:.1f} dB on average, "
            f"{self.round_trip_psnr_min:.1f} dB at least (round_trips.html)"
        )

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
    round_trips: tuple[RoundTrip, ...] | None = None
    """Images that were decoded again; None of shards without any."""

    @model_validator(mode="before")
    @classmethod
    def _gather_statistics(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        flat = "statistics" not in stored and "latent_mean" in stored
        return {**stored, "statistics": stored} if flat else stored


class BestStep(StoredValues):
    """The scored step of a training with the best value of train.score.best_by, whose average is
    kept."""

    score: str
    """Name of the score."""
    step: int
    """Steps done when it was computed."""
    value: Number
    """Its value."""

    def __str__(self) -> str:
        return f"best average: step {self.step:,}, {self.score} {self.value:.4g}"


class ModelFigures(Figures):
    """Figures of a trained model."""

    spread: ClassVar[str] = "losses"

    train_pairs: int
    """Pairs to train on, in the encodings of its own phase."""
    held_out_pairs: int
    """Pairs held out of training."""
    steps: int
    """Training steps."""
    parameters: int
    """Parameters of the denoiser."""
    losses: dict[str, Number]
    """Mean squared errors of the clean latent on held-out pairs: `held_out_loss` over all noise
    levels, `held_out_loss/0.0-0.2` and so on by noise level. Of a distilled model `teacher_error`:
    the root mean square of the difference of its samples from those of its teacher for the same
    noise and held-out captions, relative to the standard deviation of the teacher's."""
    best: BestStep | None = None
    """The best of the scored steps; None without train.score.best_by."""
    mix: dict[str, MixedSetFigures] | None = None
    """Phase -> what came from its encodings; None without train.mix."""

    @property
    def pairs(self) -> str:
        """What it was trained on, in words."""
        return mix_in_words(self.mix) if self.mix else f"{self.train_pairs:,} pairs"

    @model_validator(mode="before")
    @classmethod
    def _gather_losses(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        losses = {
            name: loss
            for name, loss in stored.items()
            if name == TEACHER_ERROR or name.startswith("held_out_loss")
        }
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
    features: dict[str, str] | None = None
    """Image features that distances compare -> digest of their weights, or their name on a hub;
    None in reports of 0.1.0, which used those of the encodings' CLIP."""
