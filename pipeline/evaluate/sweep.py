"""One trained model sampled in many ways: what each way costs and how good its pictures are.

Every point draws the same held-out captions from the same noise. A point that was drawn is kept, so
that a sweep that was stopped goes on, and one that grew draws only what is new. Knows no pages.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
from pipeline.evaluate.held_out_samples import (
    HeldOutSet,
    Models,
    latency_s,
    load_models,
    sample_held_out,
    select_held_out,
)
from pipeline.scoring.bootstrap import Estimate, bootstrap, bootstrap_difference
from pipeline.scoring.image_scores import ImageScores, load_judged, save_judged, score_images
from pipeline.scoring.metrics import mean_statistic
from pipeline.stages.contract import ShowsProgress
from pipeline.stages.integrity import refuse_damaged_shards
from tld_model.config import MOST_GUIDANCE, MOST_STEPS, SamplingSettings, SolverName

_VERSION = 1  # raised by hand when points are drawn or judged otherwise


@dataclass(frozen=True, slots=True)
class SamplingVariant:
    """How pictures are drawn: a point of the sweep before it is measured."""

    sampling: SamplingSettings
    ema: int

    def overrides(self) -> str:
        """What to type to draw so."""
        s = self.sampling
        overrides = (
            f"evaluate.guidance={s.guidance:g} evaluate.steps={s.steps} evaluate.solver={s.solver}"
        )
        return f"{overrides} evaluate.ema={self.ema}" if self.ema else overrides


@dataclass(frozen=True, slots=True)
class Point:
    """A way of drawing, measured."""

    way: SamplingVariant
    latency_s: float  # of one picture, drawn alone: the median of a few
    rows: NDArray[np.float64]  # quality of each prompt's picture [n]
    quality: Estimate


@dataclass(frozen=True, slots=True)
class Sweep:
    """Points of one model."""

    measure: str  # what quality is: prompt_accuracy, or clip_score where captions cannot be graded
    points: Sequence[Point]
    chosen: SamplingVariant  # the run's own
    best: Point  # the fastest of those that none beats beyond the interval of their difference

    @property
    def front(self) -> list[Point]:
        """Points that none beats in both, fastest first: the Pareto front."""
        front: list[Point] = []
        for point in sorted(self.points, key=lambda p: (p.latency_s, -p.quality.value)):
            if not front or point.quality.value > front[-1].quality.value:
                front.append(point)
        return front


def variants(
    own_config: EvaluateConfig,
    guidance: Sequence[float],
    steps: Sequence[int],
    solvers: Sequence[SolverName],
    averages: Sequence[int],
) -> list[SamplingVariant]:
    """Every combination, and the run's own."""
    own = SamplingVariant(own_config.sampling, own_config.ema)
    grid = itertools.product(guidance, steps, solvers, averages)
    swept = [
        SamplingVariant(replace(own.sampling, guidance=g, steps=n, solver=s), ema)
        for g, n, s, ema in grid
    ]
    return list(dict.fromkeys([own, *swept]))


def problems(
    config: RunConfig, guidance: Sequence[float], steps: Sequence[int], averages: Sequence[int]
) -> list[str]:
    """What is wrong with the values to sweep over, all of it."""
    averages_kept = len(config.train.ema_decay)
    return [
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
            f"--ema: there is no average {value}; train.ema_decay has {averages_kept}, numbered from 0"
            for value in averages
            if not 0 <= value < averages_kept
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
    """Draw and judge each way that is not known yet."""
    held_out = _held_out_set(config, encodings, model, prompts, track)
    folder = sweep_folder(config, model)
    judged, latencies = [], []
    loaded: dict[int, Models] = {}  # the average that is in memory: one at a time
    for number, way in enumerate(requested):
        settings = config.evaluate.model_copy(update={**_sampling(way.sampling), "ema": way.ema})
        name = digest_of(
            [
                _VERSION,
                encodings.digest,
                model.digest,
                choose_device(settings.device),
                held_out.numbers.tolist(),
                settings.seed,
                repr(way),
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
        track.progress(number + 1, len(requested), "ways to sample")
    measure = "clip_score" if judged[0].all_correct is None else "prompt_accuracy"
    rows = [_quality(scores) for scores in judged]
    points = [
        Point(way, latency, of_way, bootstrap(mean_statistic(of_way), len(of_way)))
        for way, latency, of_way in zip(requested, latencies, rows, strict=True)
    ]
    return Sweep(
        measure,
        points,
        SamplingVariant(config.evaluate.sampling, config.evaluate.ema),
        fastest_on_par(points),
    )


def sweep_folder(config: RunConfig, model: Manifest) -> Path:
    """Where all sweeps of a model lie."""
    return Workspace(config.folder).sweep(model.fingerprint)


@dataclass(frozen=True, slots=True)
class _Counted:
    """The progress of one way among several."""

    track: ShowsProgress
    number: int
    of: int

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.track.progress(self.number, self.of, f"ways to sample; {done} of {total} {note}")


def _held_out_set(
    config: RunConfig, encodings: Manifest, model: Manifest, prompts: int, track: ShowsProgress
) -> HeldOutSet:
    refuse_damaged_shards(encodings, track)
    split = split_pairs(encodings, model.settings["held_out_fraction"])
    pairs = open_dataset(encodings, config.model.text)
    return select_held_out(pairs, split.held_out[:prompts], split.held_out_captions[:prompts])


def _sampling(sampling: SamplingSettings) -> dict[str, object]:
    fields = ("steps", "guidance", "solver", "guidance_interval")
    return {name: getattr(sampling, name) for name in fields}


def _measure(
    models: Models, held_out: HeldOutSet, settings: EvaluateConfig, track: ShowsProgress
) -> tuple[ImageScores, float]:
    samples = sample_held_out(models, held_out, settings, track)
    return score_images(models.clip, samples, held_out.captions, settings.batch_size), latency_s(
        models, held_out, settings, track
    )


def _store(path: Path, judged: ImageScores, latency: float) -> None:
    """The time comes last: with it the point is whole. It is that of this machine."""
    save_judged(judged, path.with_suffix(".safetensors"))
    write_atomically(
        path.with_suffix(".json"), json.dumps({"latency_s": latency, "machine": hardware()}) + "\n"
    )


def _load(path: Path) -> tuple[ImageScores, float] | None:
    """A point as it was drawn on this machine."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    judged = load_judged(path.with_suffix(".safetensors"))
    return (judged, record["latency_s"]) if judged and record.get("machine") == hardware() else None


def _quality(judged: ImageScores) -> NDArray[np.float64]:
    right = judged.all_correct
    rows: NDArray[np.float64] = (judged.clip_score if right is None else right).double().numpy()
    return rows


def fastest_on_par(points: Sequence[Point]) -> Point:
    """Of those that the point of highest quality does not beat beyond the interval of their
    difference, on the same prompts."""
    top = max(points, key=lambda point: point.quality.value)
    return min(
        (point for point in points if _as_good(point, top)), key=lambda point: point.latency_s
    )


def _as_good(point: Point, top: Point) -> bool:
    difference = bootstrap_difference(
        mean_statistic(point.rows), mean_statistic(top.rows), len(top.rows)
    )
    return difference.low <= 0
