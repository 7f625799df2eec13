"""Evaluation, stage 4 (model -> report): samples held-out captions and scores the samples.

The reference of all distances is the held-out images after the VAE's round trip, so that the
scores measure the denoiser, not the VAE.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.figures import ReportFigures
from data_catalog.images import Images
from data_catalog.scores import (
    FEWEST_IMAGES,
    SCORES,
    missing_distances,
    missing_without_clip,
    score_of,
    score_on,
)
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.files import replacing, write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from data_catalog.storage.workspace import Workspace
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.split import Split, split_pairs
from pipeline.evaluate.held_out_samples import (
    diversity_of_open_attributes,
    diversity_of_prompts,
    latency_s,
    load_models,
    sample_repeatedly,
)
from pipeline.evaluate.real_comparison import compare_with_real
from pipeline.evaluate.report import Report, render_report
from pipeline.held_out.real_images import RealImages
from pipeline.held_out.samples import (
    HeldOutSet,
    Models,
    decode_held_out,
    reference_scores,
    sample_held_out,
    select_held_out,
)
from pipeline.reporting.image_grid import image_grid
from pipeline.scoring.bootstrap import Estimate, Groups, caption_groups
from pipeline.scoring.held_out_loss import held_out_losses
from pipeline.scoring.image_scores import estimate_score, estimate_scores, score_images
from pipeline.scoring.metrics import mean_statistic
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.integrity import refuse_damaged_shards

_BESIDE = 12  # samples shown beside the held-out image
_FILES = ("grid.png", "metrics.json", "report.html")


def evaluate(
    encodings: Manifest, model: Manifest, config: EvaluateConfig, out: Path, track: Tracker
) -> Output:
    """Sample held-out captions, score the samples, and write the grid, metrics and report."""
    started = time.monotonic()
    refuse_damaged_shards(encodings, track)
    track.progress(0, 0, "loading the models")
    models = load_models(encodings, model, config)
    pairs = open_dataset(encodings, models.denoiser.config.text)
    split = split_pairs(encodings, model.settings["held_out_fraction"])
    part, size = slice(config.prompts), config.batch_size
    held_out = select_held_out(pairs, split.held_out[part], split.held_out_captions[part])
    sampling = time.monotonic()
    samples = sample_held_out(models, held_out, config, track)
    timing = {"seconds_a_picture": (time.monotonic() - sampling) / len(samples)}

    track.progress(0, 0, "scoring the samples and the held-out images")
    judged = score_images(models.clip, models.features, samples, held_out.captions, size)
    workspace = Workspace(out.parents[1])
    reference = reference_scores(models, held_out, encodings, size, workspace)
    if missing := missing_distances(len(samples), judged.features):
        track.warning(f"{missing}; raise evaluate.prompts, or hold more pairs out of training")
    groups = caption_groups(split.held_out_captions)  # each score is of a first part of them
    estimates = estimate_scores(judged, reference, groups[: len(samples)])
    repeated = sample_repeatedly(models, held_out, config, track)
    estimates |= _diversities(models, held_out, repeated, config, track, groups)
    if models.clip is None:
        track.warning(_without_clip(config))
    if model.stage == "train":  # a distilled model predicts where a path ends, and not its mean
        track.progress(0, 0, "computing the held-out loss")
        estimates |= _losses(models, pairs, split, groups)
    timing["latency_s"] = latency_s(models, held_out, config, track)
    compared = None
    if models.features:
        real_images = RealImages(models, pairs, encodings, size, workspace)
        compared = compare_with_real(real_images, split, judged, reference, config, track)
        estimates |= compared.estimates(held_out.captions)

    shown = np.random.default_rng(config.seed).permutation(len(samples))[: config.grid].tolist()
    real = decode_held_out(models, held_out, shown[:_BESIDE], config.batch_size)
    report = Report(
        encodings=encodings,
        model=model,
        config=config,
        captions=held_out.captions,
        samples=samples,
        judged=judged,
        features={one.name: one.digest for one in models.features},
        shown=shown,
        real=real,
        repeated=repeated,
        estimates=estimates,
        compared=compared,
        timing=timing,
        made_by=track.run_id,
        seconds=time.monotonic() - started,
        out=out,
    )
    return _finish(report, out, track)


def _without_clip(config: EvaluateConfig) -> str:
    """What is missing where there is no CLIP."""
    left_out = missing_without_clip([choice.name for choice in config.feature_choices])
    return f"encode.clip is null, so these scores are left out: {', '.join(left_out)}"


def _diversities(
    models: Models,
    held_out: HeldOutSet,
    repeated: Images | None,
    config: EvaluateConfig,
    track: Tracker,
    groups: Groups,
) -> dict[str, Estimate]:
    """How much samples of the same caption differ: by features, and in what it leaves open."""
    diversities = {}
    if repeated is not None:
        spreads = diversity_of_prompts(models, repeated, config)
        name = score_on("diversity", models.features[0].name)
        of_each = groups[: len(spreads)]
        diversities[name] = estimate_score(name, mean_statistic(spreads), of_each)
    variety = diversity_of_open_attributes(models, held_out, config, track)
    if variety is not None:
        name, distinct = "open_attribute_diversity", np.arange(len(variety))
        diversities[name] = estimate_score(name, mean_statistic(variety), distinct)
    return diversities


def _losses(
    models: Models, pairs: EncodedDataset, split: Split, groups: Groups
) -> dict[str, Estimate]:
    """The held-out loss, over all noise levels and in bins."""
    denoiser = models.inference.denoiser(models.denoiser)
    losses = held_out_losses(denoiser, pairs, split, models.device)
    return {
        name: estimate_score(name, mean_statistic(values.numpy()), groups[: len(values)])
        for name, values in losses.items()
    }


def _finish(report: Report, out: Path, track: Tracker) -> Output:
    """Write the files, log the scores, and check them against evaluate.require.

    The digest covers only what follows from the settings, so it leaves the timing out.
    """
    track.progress(0, 0, "writing the report")
    scores = {name: estimate.value for name, estimate in report.estimates.items()}
    metrics = {name: estimate.as_json() for name, estimate in report.estimates.items()}
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    with replacing(out / "grid.png") as unfinished:
        _grid(report).save(unfinished)
    write_atomically(out / "report.html", render_report(report))

    track.metrics(scores | report.timing, step=0)
    files = [out / name for name in _FILES]
    for path in files:
        track.artifact(path)
    _require(scores | report.timing, report.config, len(report.samples), out)
    digest = file_digest(out / "metrics.json")
    shard = Shard(name="report", rows=len(report.samples), digest=digest, files=file_records(files))
    intervals = {
        name: interval
        for name, estimate in report.estimates.items()
        if (interval := estimate.interval)
    }
    figures = ReportFigures(
        scores=scores, intervals=intervals, timing=report.timing, features=report.features
    )
    return Output((shard,), figures.model_dump(mode="json"))


def _grid(report: Report) -> Image.Image:
    right = report.judged.graded.all_correct
    marks = None if right is None else right[report.shown].tolist()
    return image_grid(
        [report.samples[i] for i in report.shown],
        [report.captions[i] for i in report.shown],
        marks=marks,
    )


def _require(scores: dict[str, float], config: EvaluateConfig, images: int, out: Path) -> None:
    """Raise StageFailed if a score does not reach evaluate.require, or distill.require."""
    missed = []
    for name, bound in config.require.items():
        if name not in scores and score_of(name).is_distance:
            missed.append(
                f"  {name} is required, but it needs {FEWEST_IMAGES} images, and here are {images}"
            )
        elif name not in scores:
            missed.append(
                f"  {name} is required, but this run has no such score; it has {', '.join(scores)}"
            )
        elif SCORES[name].higher_is_better is False:
            if not scores[name] <= bound:
                missed.append(f"  {name} is {scores[name]:.4g}, at most {bound:g} is required")
        elif not scores[name] >= bound:
            missed.append(f"  {name} is {scores[name]:.4g}, at least {bound:g} is required")
    if missed:
        raise StageFailed(
            f"evaluate: the {config.model} model does not reach {config.require_setting}:\n"
            + "\n".join(missed)
            + f"\nSee {out}/report.html"
        )
