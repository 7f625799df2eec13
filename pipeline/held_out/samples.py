"""Samples of held-out captions, the held-out images, and the models that both need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.figures import EncoderNames, EncodingsFigures
from data_catalog.images import Images
from data_catalog.storage.digests import digest_of
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.devices import advice_on_memory
from pipeline.compute.inference import Inference
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.encoded_dataset import Batch, EncodedDataset
from pipeline.scoring.image_features import ImageFeatures, clip_features, load_features
from pipeline.scoring.image_scores import (
    ImageScores,
    load_judged,
    save_judged,
    score_images,
)
from pipeline.stages.contract import ShowsProgress
from tld_model.denoiser import Denoiser
from tld_model.encoders.clip import Clip, load_clip
from tld_model.encoders.vae import ImageCodec
from tld_model.sampler import counted, guided, noise_levels

_JUDGED = 3  # increase by hand when the scoring of reference images changes


@dataclass(frozen=True, slots=True)
class Models:
    """The models needed to sample and to score."""

    denoiser: Denoiser
    codec: ImageCodec
    clip: Clip | None  # None if encode.clip was null: then nothing is scored by it
    features: tuple[ImageFeatures, ...]  # those of evaluate.features, without CLIP's if it is None
    inference: Inference

    @property
    def device(self) -> str:
        """Where the models are."""
        return self.inference.device


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """Held-out pairs to sample."""

    pairs: EncodedDataset
    numbers: NDArray[np.int64]  # indices among all pairs
    captions: list[str]
    batch: Batch


def load_scorers(
    denoiser: Denoiser,
    codec: ImageCodec,
    inference: Inference,
    encoders: EncoderNames,
    features: Sequence[str],
) -> Models:
    """Models to sample with, and those that score the samples: the CLIP model of the encodings and
    the networks of image features with these names. Raises EncoderError if one cannot be loaded."""
    device = inference.device
    clip = load_clip(encoders.clip, device) if encoders.clip else None
    of_clip = clip_features(clip, encoders.clip_identity or "") if clip else None
    networks = load_features(features, of_clip, device)
    return Models(denoiser, codec, clip, networks, inference)


def select_held_out(
    pairs: EncodedDataset, numbers: NDArray[np.int64], captions: list[str]
) -> HeldOutSet:
    """Select the pairs with these indices, whose captions are `captions`."""
    return HeldOutSet(pairs, numbers, captions, pairs.batch(numbers))


def sample_latents(
    inference: Inference,
    denoiser: Denoiser,
    held_out: HeldOutSet,
    config: EvaluateConfig,
    after_call: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """One sample for each held-out caption, a batch at a time: scaled latents [b, c, z, z]. Sample
    i depends on the seed and i alone. `after_call` is called `config.sampling.model_calls` times
    for each batch."""
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(held_out.batch.latents.shape, generator=generator)
    denoise = guided(inference.denoiser(denoiser), config.guidance, config.guidance_interval)
    denoise, levels = counted(denoise, after_call), noise_levels(config.steps)
    for start in range(0, len(noise), config.batch_size):
        part = slice(start, start + config.batch_size)
        inputs = noise[part].to(inference.device), held_out.batch.text[part].to(inference.device)
        yield inference.sample(config.solver, denoise, *inputs, levels)


def sample_held_out(
    models: Models,
    held_out: HeldOutSet,
    config: EvaluateConfig,
    track: ShowsProgress,
    why: str = "sampling held-out captions",
) -> Images:
    """The samples of `sample_latents` as images: uint8 [n, h, w, 3]. The progress, which says why
    they are needed, moves with every call of the model."""
    batches: list[Images] = []
    calls, total = 0, len(held_out.captions)
    note = f"{why}, in {config.steps} steps each"

    def after_call() -> None:
        nonlocal calls
        calls += 1
        batch, call = divmod(calls, config.sampling.model_calls)
        size = min(config.batch_size, total - batch * config.batch_size)
        part = size * call // config.sampling.model_calls
        track.progress(min(batch * config.batch_size, total) + part, total, note)

    with advice_on_memory("Lower evaluate.batch_size"):
        inference, denoiser = models.inference, models.denoiser
        for latents in sample_latents(inference, denoiser, held_out, config, after_call):
            batches.append(decode(models.codec, models.inference, latents, config.batch_size))
    return np.concatenate(batches)


def decode(codec: ImageCodec, inference: Inference, latents: Tensor, batch_size: int) -> Images:
    """Scaled latents [n, c, z, z] -> uint8 [n, h, w, 3]."""
    by_rows = inference.threads.by_rows(codec.decode)
    parts = [by_rows(part).permute(0, 2, 3, 1).cpu().numpy() for part in latents.split(batch_size)]
    images: Images = np.concatenate(parts)
    return images


def decode_held_out(
    models: Models, held_out: HeldOutSet, positions: list[int], batch_size: int
) -> Images:
    """Held-out images after the VAE's round trip."""
    latents = held_out.batch.latents[positions]
    return decode(models.codec, models.inference, latents, batch_size)


def reference_scores(
    models: Models, held_out: HeldOutSet, encodings: Manifest, batch_size: int, workspace: Workspace
) -> ImageScores:
    """Embeddings and grades of the held-out images.

    They are cached in the workspace, because the same encodings always give the same ones.
    """
    encoders = EncodingsFigures.of(encodings).encoders.model_dump()
    features = [(one.name, one.digest) for one in models.features]
    identity = [_JUDGED, encodings.digest, encoders, features, held_out.numbers.tolist()]
    path = workspace.references / f"{digest_of(identity)[:12]}.safetensors"
    if (known := load_judged(path)) is not None:
        return known
    images = decode_held_out(models, held_out, list(range(len(held_out.captions))), batch_size)
    judged = score_images(models.clip, models.features, images, held_out.captions, batch_size)
    save_judged(judged, path)
    return judged
