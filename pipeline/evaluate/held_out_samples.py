"""Samples of held-out captions, the held-out images, and the models that both need."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.figures import EncodingsFigures
from data_catalog.images import Images
from data_catalog.model_files import average_file
from data_catalog.shapes.dataset import EDGE
from data_catalog.storage.digests import digest_of
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.devices import advice_on_memory, use_device
from pipeline.compute.inference import Inference, inference_on
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.encoded_dataset import Batch, EncodedDataset
from pipeline.scoring.image_features import ImageFeatures, clip_features, load_features
from pipeline.scoring.image_scores import (
    ImageScores,
    load_judged,
    save_judged,
    score_images,
)
from pipeline.scoring.metrics import diversity
from pipeline.scoring.open_attributes import first_open_captions, open_attribute_diversity
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.integrity import refuse_damaged
from tld_model.checkpoint import check_encoders, load_denoiser
from tld_model.denoiser import Denoiser
from tld_model.encoders.clip import Clip, load_clip
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels

_DIVERSITY_PROMPTS = 16
_DIVERSITY_SAMPLES = 8  # per prompt
_OPEN_CAPTIONS = 48  # that leave an attribute open
_OPEN_SAMPLES = 4  # per caption
_LATENCY_RUNS = 5
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


def load_models(encodings: Manifest, model: Manifest, config: EvaluateConfig) -> Models:
    """Load the denoiser and the encoders that it was trained with.

    Raises:
        CheckpointError: the denoiser cannot be read or does not fit the encoders.
        EncoderError: an encoder or a network of evaluate.features cannot be loaded.
        ManifestError: the denoiser's file is damaged.
    """
    device = use_device(config.device)
    encoders = EncodingsFigures.of(encodings).encoders
    denoiser = model.file(average_file(config.ema))
    for record in (
        shard.files[denoiser.name] for shard in model.shards if denoiser.name in shard.files
    ):
        refuse_damaged(denoiser, record)
    check_encoders(denoiser, encoders.vae, encoders.text_model)
    clip = load_clip(encoders.clip, device) if encoders.clip else None
    of_clip = clip_features(clip, encoders.clip_identity or "") if clip else None
    return Models(
        load_denoiser(denoiser, device),
        load_image_codec(encoders.vae, device),
        clip,
        load_features(config.features, of_clip, device),
        inference_on(device, config.precision),
    )


def select_held_out(
    pairs: EncodedDataset, numbers: NDArray[np.int64], captions: list[str]
) -> HeldOutSet:
    """Select the pairs with these indices, whose captions are `captions`."""
    return HeldOutSet(pairs, numbers, captions, pairs.batch(numbers))


def sample_held_out(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> Images:
    """One sample for each held-out caption; sample i depends on the seed and i alone."""
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(held_out.batch.latents.shape, generator=generator)
    denoiser = models.inference.denoiser(models.denoiser)
    denoise = guided(denoiser, config.guidance, config.guidance_interval)
    levels = noise_levels(config.steps)
    batches: list[Images] = []
    for start in range(0, len(noise), config.batch_size):
        part = slice(start, start + config.batch_size)
        inputs = noise[part].to(models.device), held_out.batch.text[part].to(models.device)
        with advice_on_memory("Lower evaluate.batch_size"):
            latents = models.inference.sample(config.solver, denoise, *inputs, levels)
            batches.append(_decode(models, latents, config.batch_size))
        track.progress(
            min(start + config.batch_size, len(noise)),
            len(noise),
            f"sampled in {config.steps} steps each",
        )
    return np.concatenate(batches)


def _decode(models: Models, latents: Tensor, batch_size: int) -> Images:
    """Scaled latents [n, c, z, z] -> uint8 [n, h, w, 3]."""
    decode = models.inference.threads.by_rows(models.codec.decode)
    parts = [decode(part).permute(0, 2, 3, 1).cpu().numpy() for part in latents.split(batch_size)]
    images: Images = np.concatenate(parts)
    return images


def decode_held_out(
    models: Models, held_out: HeldOutSet, positions: list[int], batch_size: int
) -> Images:
    """Held-out images after the VAE's round trip."""
    return _decode(models, held_out.batch.latents[positions], batch_size)


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


def diversity_of_prompts(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> NDArray[np.float64] | None:
    """How much the samples of one prompt differ by the first features, for each of the first
    prompts; None without features.

    The noise has a seed of its own, so that no other score uses it.
    """
    if not models.features:
        return None
    prompts = min(len(held_out.captions), _DIVERSITY_PROMPTS)
    samples = _sample_several(
        models, held_out, list(range(prompts)), _DIVERSITY_SAMPLES, _reseeded(config, 1), track
    )
    features = models.features[0].embed(samples, config.batch_size)
    spreads: NDArray[np.float64] = diversity(
        features.unflatten(0, (prompts, _DIVERSITY_SAMPLES))
    ).numpy()
    return spreads


def diversity_of_open_attributes(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> NDArray[np.float64] | None:
    """How much the samples of one caption differ in what it leaves open, for each of the first
    captions that leave anything open; None if there are none. The noise has a seed of its own."""
    positions = first_open_captions(held_out.captions, _OPEN_CAPTIONS)
    if not positions or held_out.batch.latents.shape[-1] * models.codec.downscale != EDGE:
        return None
    samples = _sample_several(
        models, held_out, positions, _OPEN_SAMPLES, _reseeded(config, 2), track
    )
    return open_attribute_diversity(
        samples.reshape(len(positions), _OPEN_SAMPLES, *samples.shape[1:]),
        [held_out.captions[position] for position in positions],
    )


def _reseeded(config: EvaluateConfig, number: int) -> EvaluateConfig:
    return config.model_copy(update={"seed": config.seed + number})


def _sample_several(
    models: Models,
    held_out: HeldOutSet,
    positions: list[int],
    count: int,
    config: EvaluateConfig,
    track: ShowsProgress,
) -> Images:
    """`count` samples of each of the held-out captions at these positions, one after the other."""
    captions = [held_out.captions[position] for position in positions for _ in range(count)]
    numbers = held_out.numbers[positions].repeat(count)
    return sample_held_out(
        models, select_held_out(held_out.pairs, numbers, captions), config, track
    )


def latency_s(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> float:
    """Seconds that one image takes alone: the median of a few runs."""
    one = select_held_out(held_out.pairs, held_out.numbers[:1], held_out.captions[:1])
    seconds = []
    for _ in range(_LATENCY_RUNS):
        started = time.monotonic()
        sample_held_out(models, one, config, track)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)
