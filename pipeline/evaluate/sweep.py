"""Sampling sweep: the quality and latency of one trained model under many sampling settings.

Every point samples the same held-out captions from the same noise. Measured points are stored, so
a stopped sweep can be resumed and an extended one measures only its new points.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_catalog.model_files import Average
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.digests import digest_of
from data_catalog.storage.files import write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.devices import choose_device
from pipeline.compute.hardware import hardware
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.evaluate.held_out_samples import latency_s, load_models
from pipeline.evaluate.sweep_points import Point, SamplingVariant, Sweep, fastest_on_par
from pipeline.held_out.samples import HeldOutSet, Models, sample_held_out, select_held_out
from pipeline.scoring.bootstrap import caption_groups
from pipeline.scoring.image_scores import (
    ImageScores,
    estimate_score,
    load_judged,
    save_judged,
    score_images,
)
from pipeline.scoring.metrics import mean_statistic
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.integrity import refuse_damaged_shards
from tld_model.config import MOST_GUIDANCE, MOST_STEPS, SolverName

_VERSION = 2  # increase by hand when the sampling or scoring of points changes


def variants(
    own_config: EvaluateConfig,
    guidance: Sequence[float],
    steps: Sequence[int],
    solvers: Sequence[SolverName],
    averages: Sequence[Average],
) -> list[SamplingVariant]:
    """The variant of the run's own settings, then every other combination."""
    own = SamplingVariant(own_config.sampling, own_config.ema)
    grid = itertools.product(guidance, steps, solvers, averages)
    swept = [
        SamplingVariant(replace(own.sampling, guidance=g, steps=n, solver=s), ema)
        for g, n, s, ema in grid
    ]
    return list(dict.fromkeys([own, *swept]))


def problems(
    config: RunConfig, guidance: Sequence[float], steps: Sequence[int], averages: Sequence[Average]
) -> list[str]:
    """Everything that is wrong with the run and the values to sweep over."""
    scored = config.encode.clip or config.download.urls == shapes.NAME
    return [
        *([] if scored else ["encode.clip is null, so nothing can score the samples; set it"]),
        *(
            f"--guidance must be from 1 to {MOST_GUIDANCE:g}, got {value:g}"
            for value in guidance
            if not 1 <= value <= MOST_GUIDANCE
        ),
        *(
            f"--steps must be from 1 to {MOST_STEPS}, got {value}"
            for value in steps
            if not 1 <= value <= MOST_STEPS
        ),
        *(
            f"--ema: {problem}"
            for value in averages
            if (problem := config.train.average_problem(value))
        ),
    ]


def sweep(
    config: RunConfig,
    encodings: Manifest,
    model: Manifest,
    requested: Sequence[SamplingVariant],
    prompts: int,
    track: ShowsProgress,
) -> Sweep:
    """Sample and score each variant that was not measured before."""
    held_out = _held_out_set(config, encodings, model, prompts, track)
    folder = sweep_folder(config, model)
    judged, latencies = [], []
    loaded: dict[Average, Models] = {}  # only one average is in memory at a time
    for number, way in enumerate(requested):
        changed = {**asdict(way.sampling), "ema": way.ema, "features": ()}
        settings = config.evaluate.model_copy(update=changed)
        name = digest_of(
            [
                _VERSION,
                encodings.digest,
                model.digest,
                choose_device(settings.device),
                held_out.numbers.tolist(),
                settings.seed,
                repr(way),
                *([settings.precision] if settings.precision != "auto" else []),
            ]
        )[:12]
        note = _Counted(track, number, len(requested))
        measured = _load(folder / name)
        if measured is None:
            if way.ema not in loaded:
                loaded = {way.ema: load_models(encodings, model, settings)}
            measured = _measure(loaded[way.ema], held_out, settings, note)
            _store(folder / name, *measured)
        judged.append(measured[0])
        latencies.append(measured[1])
        track.progress(number + 1, len(requested), "sampling variants")
    measure = "clip_score" if judged[0].graded.all_correct is None else "prompt_accuracy"
    rows, groups = [_quality(scores) for scores in judged], caption_groups(held_out.captions)
    points = [
        Point(way, latency, row, groups, estimate_score(measure, mean_statistic(row), groups))
        for way, latency, row in zip(requested, latencies, rows, strict=True)
    ]
    return Sweep(
        measure,
        points,
        SamplingVariant(config.evaluate.sampling, config.evaluate.ema),
        fastest_on_par(points),
    )


def sweep_folder(config: RunConfig, model: Manifest) -> Path:
    """Folder of all sweeps of a model."""
    return Workspace(config.folder).sweep(model.fingerprint)


@dataclass(frozen=True, slots=True)
class _Counted:
    """Progress of one variant among several."""

    track: ShowsProgress
    number: int
    of: int

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.track.progress(self.number, self.of, f"sampling variants; {done} of {total} {note}")


def _held_out_set(
    config: RunConfig, encodings: Manifest, model: Manifest, prompts: int, track: ShowsProgress
) -> HeldOutSet:
    refuse_damaged_shards(encodings, track)
    split = split_pairs(encodings, model.settings["held_out_fraction"])
    pairs = open_dataset(encodings, config.model.text)
    return select_held_out(pairs, split.held_out[:prompts], split.held_out_captions[:prompts])


def _measure(
    models: Models, held_out: HeldOutSet, settings: EvaluateConfig, track: ShowsProgress
) -> tuple[ImageScores, float]:
    samples = sample_held_out(models, held_out, settings, track)
    judged = score_images(models.clip, (), samples, held_out.captions, settings.batch_size)
    return judged, latency_s(models, held_out, settings, track)


def _store(path: Path, judged: ImageScores, latency: float) -> None:
    """Store a point. Its time is written last, which completes it, and holds for this machine."""
    save_judged(judged, path.with_suffix(".safetensors"))
    write_atomically(
        path.with_suffix(".json"), json.dumps({"latency_s": latency, "machine": hardware()}) + "\n"
    )


def _load(path: Path) -> tuple[ImageScores, float] | None:
    """A point as it was measured on this machine, or None."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    judged = load_judged(path.with_suffix(".safetensors"))
    return (judged, record["latency_s"]) if judged and record.get("machine") == hardware() else None


def _quality(judged: ImageScores) -> NDArray[np.float64]:
    right = judged.graded.all_correct
    scores = judged.clip_score if right is None else right
    assert scores is not None, "`problems` refused this"
    rows: NDArray[np.float64] = scores.double().numpy()
    return rows
