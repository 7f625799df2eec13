"""The models of an evaluation, how far samples of one caption differ, and how long one takes."""

from __future__ import annotations

import statistics
import time

import numpy as np
from numpy.typing import NDArray

from data_catalog.figures import EncodingsFigures
from data_catalog.images import Images
from data_catalog.model_files import average_file
from data_catalog.shapes.dataset import EDGE
from data_catalog.storage.manifest import Manifest
from pipeline.compute.devices import use_device
from pipeline.compute.inference import inference_on
from pipeline.config.evaluate import EvaluateConfig
from pipeline.held_out.samples import (
    HeldOutSet,
    Models,
    load_scorers,
    sample_held_out,
    select_held_out,
)
from pipeline.scoring.metrics import diversity
from pipeline.scoring.open_attributes import first_open_captions, open_attribute_diversity
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.integrity import refuse_damaged
from tld_model.checkpoint import check_encoders, load_denoiser
from tld_model.encoders.vae import load_image_codec

_DIVERSITY_PROMPTS = 16
_DIVERSITY_SAMPLES = 8  # per prompt
_OPEN_CAPTIONS = 48  # that leave an attribute open
_OPEN_SAMPLES = 4  # per caption
_LATENCY_RUNS = 5


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
    return load_scorers(
        load_denoiser(denoiser, device),
        load_image_codec(encoders.vae, device),
        inference_on(device, config.precision),
        encoders,
        config.features,
    )


def sample_repeatedly(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> Images | None:
    """Several samples of each of the first captions, [p, k, h, w, 3]; None without features.

    The noise has a seed of its own, so that no other score uses it.
    """
    if not models.features:
        return None
    prompts = min(len(held_out.captions), _DIVERSITY_PROMPTS)
    samples = _sample_several(
        models, held_out, list(range(prompts)), _DIVERSITY_SAMPLES, _reseeded(config, 1), track
    )
    return samples.reshape(prompts, _DIVERSITY_SAMPLES, *samples.shape[1:])


def diversity_of_prompts(
    models: Models, repeated: Images, config: EvaluateConfig
) -> NDArray[np.float64]:
    """How much the samples [p, k, h, w, 3] of each prompt differ by the first features, [p]."""
    features = models.features[0].embed(
        repeated.reshape(-1, *repeated.shape[2:]), config.batch_size
    )
    spreads: NDArray[np.float64] = diversity(features.unflatten(0, repeated.shape[:2])).numpy()
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
    several = select_held_out(held_out.pairs, numbers, captions)
    return sample_held_out(models, several, config, track, "sampling captions several times")


def latency_s(
    models: Models, held_out: HeldOutSet, config: EvaluateConfig, track: ShowsProgress
) -> float:
    """Seconds that one image takes alone: the median of a few runs."""
    one = select_held_out(held_out.pairs, held_out.numbers[:1], held_out.captions[:1])
    seconds = []
    for _ in range(_LATENCY_RUNS):
        started = time.monotonic()
        sample_held_out(models, one, config, track, "measuring the time of one image")
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)
