"""Evaluation report: report.html, one page that opens without network access."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from data_catalog.figures import EncodingsFigures, ModelFigures
from data_catalog.image_formats import open_image
from data_catalog.images import Images
from data_catalog.row_counts import account_rows
from data_catalog.scores import FEWEST_CAPTIONS, SCORES, missing_distances, whole_scores
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from data_catalog.storage.lineage import ancestors
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.hardware import hardware
from pipeline.config.command_line import typed_at, typed_command
from pipeline.config.distribution import tld_version_and_commit
from pipeline.config.evaluate import EvaluateConfig
from pipeline.evaluate.earlier_report import earlier_report
from pipeline.evaluate.real_comparison import RealComparison, SideBySide
from pipeline.evaluate.stage_graph import Evaluation, stage_graph
from pipeline.evaluate.training_history import training_charts, training_samples
from pipeline.evaluate.verdict import verdict
from pipeline.reporting.render import data_uri, image_uri, render_page
from pipeline.scoring.bootstrap import Estimate
from pipeline.scoring.image_scores import ImageScores

_EXTREMES = 12  # best, worst and wrong samples shown
_REPEATED = 4  # captions shown with several samples
_ACCURACIES = {
    "prompt_accuracy/full": "full captions",
    "prompt_accuracy/partial": "partial captions",
    **{f"accuracy/{name}": name for name in ATTRIBUTE_NAMES},
}


@dataclass(frozen=True, slots=True)
class Report:
    """Contents of the page."""

    encodings: Manifest
    model: Manifest
    config: EvaluateConfig
    captions: list[str]
    samples: Images  # one for each caption
    judged: ImageScores  # the samples
    features: dict[str, str]  # name of image features -> digest of the weights
    shown: list[int]  # indices of random samples, as in the grid
    real: Images  # the held-out images of the first of `shown`
    repeated: Images | None  # several samples of each of the first captions, [p, k, h, w, 3]
    estimates: dict[str, Estimate]
    compared: RealComparison | None  # None without features
    timing: dict[str, float]
    made_by: str
    seconds: float  # of the evaluation so far
    out: Path  # the folder of the page


@dataclass(frozen=True, slots=True)
class Tile:
    """An image on the page."""

    image: str  # data URI
    caption: str
    note: str
    right: bool | None  # whether it shows everything in the caption; None if unknown


def render_report(report: Report) -> str:
    """The page as HTML."""
    encodings, model = EncodingsFigures.of(report.encodings), ModelFigures.of(report.model)
    lineage = list(ancestors(report.encodings, report.model))
    durations = [*(manifest.seconds for manifest in lineage), report.seconds]
    evaluation = Evaluation(report.encodings, report.model, len(report.samples), report.seconds)
    sweep = (
        Workspace(report.encodings.folder.parents[1]).sweep(report.model.fingerprint) / "sweep.png"
    )
    return render_page(
        "report.html.j2",
        report=report,
        verdict=verdict(report.estimates),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=tld_version_and_commit(),
        command=typed_command(),
        earlier=earlier_report(report.encodings, report.model, report.config, report.out),
        encodings=encodings,
        model=model,
        **_scores(report),
        **_samples(report),
        charts=training_charts(report.model),
        along=training_samples(report.model),
        account=[
            *account_rows(encodings.account),
            ("split", "to train on", model.train_pairs),
            ("split", "held out", model.held_out_pairs),
        ],
        ancestors=lineage,
        graph=stage_graph(lineage, evaluation, typed_at()),
        machine=hardware(),
        sweep=data_uri(open_image(sweep)) if sweep.exists() else "",
        hours=sum(durations) / 3600,
        settings=[
            *((manifest.stage, _as_yaml(manifest.settings)) for manifest in lineage),
            ("evaluate", _as_yaml(report.config.model_dump(mode="json"))),
        ],
    )


def _scores(report: Report) -> dict[str, Any]:
    """What the page says of scores."""
    estimates = report.estimates
    return {
        "estimates": [(score, estimates[score.name]) for score in whole_scores(estimates)],
        "latency": SCORES["latency_s"],
        "missing": missing_distances(len(report.samples), report.features),
        "fewest_captions": FEWEST_CAPTIONS,
        "attributes": [
            (label, estimates[name], estimates[f"reference/{name}"])
            for name, label in _ACCURACIES.items()
            if name in estimates
        ],
        "bins": {
            name.rpartition("/")[2]: estimate
            for name, estimate in estimates.items()
            if name.startswith("held_out_loss/")
        },
    }


def _samples(report: Report) -> dict[str, Any]:
    """The samples that the page shows."""
    scores = report.judged.clip_score
    by_score = [] if scores is None else scores.argsort(descending=True).tolist()
    extremes = min(_EXTREMES, len(by_score) // 2)
    return {
        "random": [_tile(report, number) for number in report.shown],
        "best": [_tile(report, number) for number in by_score[:extremes]],
        "worst": [_tile(report, number) for number in by_score[::-1][:extremes]],
        "wrong": _wrong(report),
        "repeated": _repeated(report),
        "beside": _beside(report),
        "nearest": _nearest(report),
        "retrieval": _retrieval(report),
    }


def _tile(report: Report, number: int) -> Tile:
    graded, scores = report.judged.graded, report.judged.clip_score
    of_all = graded.all_correct
    right = None if of_all is None else bool(of_all[number])
    wrong = [name for name, correct in graded.correct.items() if not correct[number]]
    parts = ["✓" if right else f"✗ {', '.join(wrong)}"] if right is not None else []
    if scores is not None:
        parts.append(f"CLIP score {scores[number]:.1f}")
    return Tile(image_uri(report.samples[number]), report.captions[number], "; ".join(parts), right)


def _wrong(report: Report) -> list[Tile]:
    """The first samples that do not show what their caption says."""
    of_all = report.judged.graded.all_correct
    if of_all is None:
        return []
    return [_tile(report, int(number)) for number in (~of_all).nonzero()[:_EXTREMES, 0]]


def _repeated(report: Report) -> list[tuple[str, list[str]]]:
    """The first captions, each with its samples."""
    if report.repeated is None:
        return []
    shown = report.repeated[:_REPEATED]
    return [
        (caption, [image_uri(image) for image in images])
        for caption, images in zip(report.captions, shown, strict=False)
    ]


def _beside(report: Report) -> list[tuple[Tile, str]]:
    """Samples, each with the held-out image of its caption."""
    return [
        (_tile(report, i), image_uri(real))
        for i, real in zip(report.shown, report.real, strict=False)
    ]


def _nearest(report: Report) -> list[SideBySide]:
    """Samples, each with the nearest training image."""
    if report.compared is None:
        return []
    shown = report.shown[: len(report.real)]
    return report.compared.nearest_tiles(report.samples, report.captions, shown)


def _retrieval(report: Report) -> list[SideBySide]:
    """Samples, each with the true image and the nearest one of its style."""
    if report.compared is None:
        return []
    shown = report.shown[: len(report.real)]
    return report.compared.retrieval_tiles(report.samples, report.captions, shown)


def _as_yaml(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
