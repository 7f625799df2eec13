"""Stage 4, model -> report: samples held-out captions and scores the samples.

The reference of all distances is the held-out pictures after the VAE's round trip, so that the scores
judge the denoiser, not the VAE. Knows nothing of training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog import shapes
from data_catalog.manifest import Manifest, Shard, file_digest, file_records, write_atomically
from pipeline.batches import Batch, open_pairs, split_pairs
from pipeline.config import EvaluateConfig
from pipeline.devices import choose_device
from pipeline.metrics import clip_scores, cmmd, frechet_distance
from pipeline.pictures import picture_grid
from pipeline.report import render_report
from pipeline.stage import Output, StageFailed, Tracker
from pipeline.train import held_out_loss
from pipeline.train_events import EVENTS_FILE, MODEL_FILE
from tld_model.checkpoint import check_encoders, load_denoiser
from tld_model.denoiser import Denoiser
from tld_model.encoders import Clip, ImageCodec, load_clip, load_image_codec
from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m

Pictures = NDArray[np.uint8]  # [n, h, w, 3]
HIGHER_IS_BETTER = ("clip_score", "prompt_accuracy", "accuracy/")


@dataclass(frozen=True, slots=True)
class _Models:
    denoiser: Denoiser
    codec: ImageCodec
    clip: Clip
    device: str


@dataclass(frozen=True, slots=True)
class _Held:
    """The held-out pairs that are sampled."""

    captions: list[str]
    batch: Batch
    clip_text: Tensor  # pooled, whatever the denoiser takes: float32 [n, d]


def evaluate(encodings: Manifest, model: Manifest, config: EvaluateConfig, out: Path, track: Tracker) -> Output:
    """Sample held-out captions, score the samples, write grid, metrics and report."""
    device = choose_device(config.device)
    encoders = encodings.figures["encoders"]
    check_encoders(model.file(MODEL_FILE), encoders["vae"], encoders["clip"])
    models = _Models(
        load_denoiser(model.file(MODEL_FILE), device),
        load_image_codec(encoders["vae"], device),
        load_clip(encoders["clip"], device),
        device,
    )
    pairs = open_pairs(encodings, models.denoiser.config.text)
    split = split_pairs(encodings, model.settings["held_out_fraction"])
    numbers = split.held_out[: config.prompts]
    clip_text = replace(pairs, form="pooled").take(numbers).text
    held = _Held(split.held_out_captions[: config.prompts], pairs.take(numbers), clip_text)
    samples = _sample(models, held, config, track)
    reference = _decode(models, held.batch.latents, config.batch_size)

    scores = _scores(models, held, samples, reference, config)
    scores |= held_out_loss(models.denoiser, pairs, split, device)
    _write(out, encodings, model, config, held, samples, reference, scores)
    track.metrics(scores, step=0)
    for name in ("grid.png", "metrics.json", "report.html"):
        track.artifact(out / name)
    _require(scores, config.require, out)
    files = [out / name for name in ("grid.png", "metrics.json", "report.html")]
    shard = Shard(
        name="report",
        rows=len(numbers),
        digest=file_digest(out / "metrics.json"),
        files=file_records(files),
    )
    return Output((shard,), {"scores": scores})


def _sample(models: _Models, held: _Held, config: EvaluateConfig, track: Tracker) -> Pictures:
    """One sample for each held-out caption; sample i depends on the seed and i alone."""
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(held.batch.latents.shape, generator=generator)
    denoise = guided(models.denoiser, config.guidance)
    pictures: list[Pictures] = []
    for start in range(0, len(noise), config.batch_size):
        part = slice(start, start + config.batch_size)
        latents = sample_dpmpp_2m(
            denoise, noise[part].to(models.device), held.batch.text[part].to(models.device), noise_levels(config.steps)
        )
        pictures.append(_decode(models, latents, config.batch_size))
        track.progress(min(start + config.batch_size, len(noise)), len(noise), f"sampled in {config.steps} steps each")
    return np.concatenate(pictures)


def _decode(models: _Models, latents: Tensor, batch_size: int) -> Pictures:
    """scaled latents [n, c, z, z] -> uint8 [n, h, w, 3]"""
    parts = [models.codec.decode(part).permute(0, 2, 3, 1).cpu().numpy() for part in latents.split(batch_size)]
    pictures: Pictures = np.concatenate(parts)
    return pictures


def _scores(
    models: _Models, held: _Held, samples: Pictures, reference: Pictures, config: EvaluateConfig
) -> dict[str, float]:
    sampled, real = (_embed(models, pictures, config.batch_size) for pictures in (samples, reference))
    scores = {
        "clip_score": float(clip_scores(sampled, held.clip_text).mean()),
        "clip_score_reference": float(clip_scores(real, held.clip_text).mean()),
        "cmmd": cmmd(sampled, real),
    }
    if len(samples) > 1:
        scores["frechet_distance"] = frechet_distance(sampled, real)
    if accuracy := prompt_accuracy(samples, held.captions):
        scores |= accuracy
        scores |= {f"reference/{name}": value for name, value in prompt_accuracy(reference, held.captions).items()}
    return scores


def _embed(models: _Models, pictures: Pictures, batch_size: int) -> Tensor:
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return torch.cat([models.clip.encode_images(part).cpu() for part in pixels.split(batch_size)])


def prompt_accuracy(pictures: Pictures, captions: Sequence[str]) -> dict[str, float]:
    """How often all attributes of a caption are read back from its picture, and each alone; empty where
    the captions are not those of the built-in data set."""
    wanted = [shapes.parse_caption(caption) for caption in captions]
    if not all(wanted) or pictures.shape[1:] != (shapes.EDGE, shapes.EDGE, 3):
        return {}
    verdicts = [
        shapes.grade(picture).agrees(attributes)
        for picture, attributes in zip(pictures, wanted, strict=True)
        if attributes
    ]
    alone = {f"accuracy/{name}": float(np.mean([v[name] for v in verdicts])) for name in shapes.ATTRIBUTE_NAMES}
    return {"prompt_accuracy": float(np.mean([all(v.values()) for v in verdicts])), **alone}


def _write(
    out: Path,
    encodings: Manifest,
    model: Manifest,
    config: EvaluateConfig,
    held: _Held,
    samples: Pictures,
    reference: Pictures,
    scores: dict[str, float],
) -> None:
    shown = _spread(len(samples), config.grid)
    captions = [held.captions[i] for i in shown]
    marks = [prompt_accuracy(samples[i : i + 1], [held.captions[i]]).get("prompt_accuracy") for i in shown]
    judged = [mark == 1 for mark in marks] if all(mark is not None for mark in marks) else None
    grid = picture_grid([samples[i] for i in shown], captions, marks=judged)
    grid.save(out / "grid.png")
    pairs = [picture for i in shown[:12] for picture in (samples[i], reference[i])]
    labels = [label for i in shown[:12] for label in (held.captions[i], "the held-out picture")]
    write_atomically(out / "metrics.json", json.dumps(scores, indent=2) + "\n")
    history = _history(model.folder / EVENTS_FILE)
    page = render_report(encodings, model, config, scores, grid, picture_grid(pairs, labels, columns=6), history)
    write_atomically(out / "report.html", page)


def _spread(count: int, wanted: int) -> list[int]:
    """Numbers spread evenly over `count`."""
    return [round(float(number)) for number in np.linspace(0, count - 1, min(count, wanted))]


def _history(events: Path) -> list[dict[str, Any]]:
    """The metrics that training told, in order."""
    lines = events.read_text().splitlines() if events.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == "metrics"]


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
