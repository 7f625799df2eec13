"""Stage 4, model -> report: samples held-out captions and scores the samples.

The reference of all distances is the held-out pictures after the VAE's round trip, so that the scores
judge the denoiser, not the VAE. Knows nothing of training.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_catalog.images import Pictures
from data_catalog.model_files import average_file
from data_catalog.scores import HIGHER_IS_BETTER
from data_catalog.storage.digests import digest_of, file_digest, file_records
from data_catalog.storage.files import replacing, write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from data_catalog.storage.workspace import Workspace
from pipeline.compute.devices import choose_device
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.encoded_dataset import Batch, EncodedPairs, open_pairs
from pipeline.dataset.split import split_pairs
from pipeline.evaluate.report import Report, render_report
from pipeline.maintenance.verify import refuse_damaged, refuse_damaged_shards
from pipeline.reporting.image_grid import picture_grid
from pipeline.scoring.bootstrap import Estimate, bootstrap
from pipeline.scoring.held_out_loss import held_out_losses
from pipeline.scoring.image_scores import Judged, embed_pictures, estimate_scores, judge, load_judged, save_judged
from pipeline.scoring.metrics import diversity, mean_of
from pipeline.stages.run_stage import Output, ShowsProgress, StageFailed, Tracker
from tld_model.checkpoint import check_encoders, load_denoiser
from tld_model.denoiser import Denoiser
from tld_model.encoders.clip import Clip, ImageCodec, load_clip, load_image_codec
from tld_model.sampler import guided, noise_levels, sample

_BESIDE = 12  # samples shown beside the held-out picture
_DIVERSITY_PROMPTS = 16
_DIVERSITY_SAMPLES = 8  # of each
_LATENCY_RUNS = 5
_FILES = ("grid.png", "metrics.json", "report.html")
_JUDGED = 1  # raised by hand when reference pictures are judged otherwise


@dataclass(frozen=True, slots=True)
class Models:
    """What it takes to sample and judge."""

    denoiser: Denoiser
    codec: ImageCodec
    clip: Clip
    device: str


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out pairs that are sampled."""

    pairs: EncodedPairs
    numbers: NDArray[np.int64]  # among all pairs
    captions: list[str]
    batch: Batch


def evaluate(encodings: Manifest, model: Manifest, config: EvaluateConfig, out: Path, track: Tracker) -> Output:
    """Sample held-out captions, score the samples, write grid, metrics and report."""
    started = time.monotonic()
    refuse_damaged_shards(encodings, track)
    models = load_models(encodings, model, config)
    pairs = open_pairs(encodings, models.denoiser.config.text)
    split = split_pairs(encodings, model.settings["held_out_fraction"])
    held = hold(pairs, split.held_out[: config.prompts], split.held_out_captions[: config.prompts])
    sampling = time.monotonic()
    samples = sample_held_out(models, held, config, track)
    timing = {"seconds_a_picture": (time.monotonic() - sampling) / len(samples)}

    judged = judge(models.clip, samples, held.captions, config.batch_size)
    reference = judged_reference(models, held, encodings, config.batch_size, Workspace(out.parents[1]))
    estimates = estimate_scores(judged, reference)
    spreads = diversity_of_prompts(models, held, config, track)
    estimates["diversity"] = bootstrap(mean_of(spreads), len(spreads))
    for name, losses in held_out_losses(models.denoiser, pairs, split, models.device).items():
        estimates[name] = bootstrap(mean_of(losses.numpy()), len(losses))
    timing["latency_s"] = latency_s(models, held, config, track)

    shown = np.random.default_rng(config.seed).permutation(len(samples))[: config.grid].tolist()
    real = decode_held_out(models, held, shown[:_BESIDE], config.batch_size)
    report = Report(
        encodings=encodings,
        model=model,
        config=config,
        captions=held.captions,
        samples=samples,
        judged=judged,
        shown=shown,
        real=real,
        estimates=estimates,
        timing=timing,
        made_by=track.run_id,
        seconds=time.monotonic() - started,
    )
    return _finish(report, out, track)


def load_models(encodings: Manifest, model: Manifest, config: EvaluateConfig) -> Models:
    """The denoiser with the encoders that it was trained on. Raises CheckpointError, EncoderError or ManifestError."""
    device = choose_device(config.device)
    encoders = encodings.figures["encoders"]
    denoiser = model.file(average_file(config.ema))
    for record in (shard.files[denoiser.name] for shard in model.shards if denoiser.name in shard.files):
        refuse_damaged(denoiser, record)
    check_encoders(denoiser, encoders["vae"], encoders["clip"])
    return Models(
        load_denoiser(denoiser, device),
        load_image_codec(encoders["vae"], device),
        load_clip(encoders["clip"], device),
        device,
    )


def hold(pairs: EncodedPairs, numbers: NDArray[np.int64], captions: list[str]) -> Held:
    """The pairs of these numbers, which have these captions."""
    return Held(pairs, numbers, captions, pairs.take(numbers))


def sample_held_out(models: Models, held: Held, config: EvaluateConfig, track: ShowsProgress) -> Pictures:
    """One sample for each held-out caption; sample i depends on the seed and i alone."""
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(held.batch.latents.shape, generator=generator)
    denoise = guided(models.denoiser, config.guidance, config.guidance_interval)
    levels = noise_levels(config.steps)
    pictures: list[Pictures] = []
    for start in range(0, len(noise), config.batch_size):
        part = slice(start, start + config.batch_size)
        there = noise[part].to(models.device), held.batch.text[part].to(models.device)
        latents = sample(config.solver, denoise, *there, levels)
        pictures.append(_decode(models, latents, config.batch_size))
        track.progress(min(start + config.batch_size, len(noise)), len(noise), f"sampled in {config.steps} steps each")
    return np.concatenate(pictures)


def _decode(models: Models, latents: Tensor, batch_size: int) -> Pictures:
    """scaled latents [n, c, z, z] -> uint8 [n, h, w, 3]"""
    parts = [models.codec.decode(part).permute(0, 2, 3, 1).cpu().numpy() for part in latents.split(batch_size)]
    pictures: Pictures = np.concatenate(parts)
    return pictures


def decode_held_out(models: Models, held: Held, positions: list[int], batch_size: int) -> Pictures:
    """The held-out pictures themselves, through the VAE."""
    return _decode(models, held.batch.latents[positions], batch_size)


def judged_reference(models: Models, held: Held, encodings: Manifest, batch_size: int, workspace: Workspace) -> Judged:
    """The held-out pictures as CLIP and the grader see them: decoded and embedded once for the same encodings."""
    identity = [_JUDGED, encodings.digest, encodings.figures["encoders"], held.numbers.tolist()]
    path = workspace.references / f"{digest_of(identity)[:12]}.safetensors"
    if (known := load_judged(path)) is not None:
        return known
    pictures = decode_held_out(models, held, list(range(len(held.captions))), batch_size)
    judged = judge(models.clip, pictures, held.captions, batch_size)
    save_judged(judged, path)
    return judged


def diversity_of_prompts(
    models: Models, held: Held, config: EvaluateConfig, track: ShowsProgress
) -> NDArray[np.float64]:
    """How far samples of one prompt differ, for each of the first prompts; from noise that no other score saw."""
    prompts = min(len(held.captions), _DIVERSITY_PROMPTS)
    captions = [caption for caption in held.captions[:prompts] for _ in range(_DIVERSITY_SAMPLES)]
    several = hold(held.pairs, held.numbers[:prompts].repeat(_DIVERSITY_SAMPLES), captions)
    samples = sample_held_out(models, several, config.model_copy(update={"seed": config.seed + 1}), track)
    features = embed_pictures(models.clip, samples, config.batch_size)
    of_each: NDArray[np.float64] = diversity(features.unflatten(0, (prompts, _DIVERSITY_SAMPLES))).numpy()
    return of_each


def latency_s(models: Models, held: Held, config: EvaluateConfig, track: ShowsProgress) -> float:
    """How long a person waits for one picture, seconds: the median of a few."""
    one = hold(held.pairs, held.numbers[:1], held.captions[:1])
    took = []
    for _ in range(_LATENCY_RUNS):
        started = time.monotonic()
        sample_held_out(models, one, config, track)
        took.append(time.monotonic() - started)
    return statistics.median(took)


def _finish(report: Report, out: Path, track: Tracker) -> Output:
    """Write the files, tell the scores, demand what the run demands. The digest covers what follows from the
    settings, which the time it took does not."""
    scores = {name: estimate.value for name, estimate in report.estimates.items()}
    metrics = {name: _in_json(estimate) for name, estimate in report.estimates.items()}
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    with replacing(out / "grid.png") as unfinished:
        _grid(report).save(unfinished)
    write_atomically(out / "report.html", render_report(report))

    track.metrics(scores | report.timing, step=0)
    files = [out / name for name in _FILES]
    for path in files:
        track.artifact(path)
    _require(scores | report.timing, report.config.require, out)
    digest = file_digest(out / "metrics.json")
    shard = Shard(name="report", rows=len(report.samples), digest=digest, files=file_records(files))
    intervals = {name: list(ends) for name, told in report.estimates.items() if (ends := told.interval)}
    return Output((shard,), {"scores": scores, "intervals": intervals, "timing": report.timing})


def _in_json(estimate: Estimate) -> dict[str, float | None]:
    """An estimate as JSON can say it, which knows no infinity."""
    low, high = estimate.interval or (None, None)
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n}


def _grid(report: Report) -> Image.Image:
    right = report.judged.all_correct
    marks = None if right is None else right[report.shown].tolist()
    return picture_grid(
        [report.samples[i] for i in report.shown], [report.captions[i] for i in report.shown], marks=marks
    )


def _require(scores: dict[str, float], required: dict[str, float], out: Path) -> None:
    """Raise StageFailed where a score misses what the run demands."""
    missed = []
    for name, bound in required.items():
        if name not in scores:
            missed.append(f"  {name} is demanded, but this run has no such score; it has {', '.join(scores)}")
        elif name.startswith(HIGHER_IS_BETTER) and not scores[name] >= bound:
            missed.append(f"  {name} is {scores[name]:.4g}, at least {bound:g} is demanded")
        elif not name.startswith(HIGHER_IS_BETTER) and not scores[name] <= bound:
            missed.append(f"  {name} is {scores[name]:.4g}, at most {bound:g} is demanded")
    if missed:
        raise StageFailed(
            "evaluate: the model misses what evaluate.require demands:\n"
            + "\n".join(missed)
            + f"\nLook at {out}/report.html"
        )
