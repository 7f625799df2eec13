"""Evaluation report: report.html, one page that opens without network access."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_catalog.figures import EncodingsFigures, ModelFigures
from data_catalog.image_formats import open_image
from data_catalog.images import Images
from data_catalog.model_files import EVENTS_FILE, read_events
from data_catalog.row_counts import account_rows
from data_catalog.scores import FEWEST_CAPTIONS, SCORES, missing_distances, whole_scores
from data_catalog.shapes.captions import ATTRIBUTE_NAMES
from data_catalog.storage.lineage import ancestors
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.hardware import hardware
from pipeline.config.evaluate import EvaluateConfig
from pipeline.evaluate.real_comparison import RealComparison, SideBySide
from pipeline.reporting.charts import Points, curves
from pipeline.reporting.render import data_uri, image_uri, render_page
from pipeline.scoring.bootstrap import Estimate
from pipeline.scoring.image_scores import ImageScores

_EXTREMES = 12  # best and worst samples shown
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
    estimates: dict[str, Estimate]
    compared: RealComparison | None  # None without features
    timing: dict[str, float]
    made_by: str
    seconds: float  # of the evaluation so far


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
    history = _history(report.model.file(EVENTS_FILE))
    lineage = list(ancestors(report.encodings, report.model))
    scores = report.judged.clip_score
    by_score = [] if scores is None else scores.argsort(descending=True).tolist()
    extremes = min(_EXTREMES, len(by_score) // 2)
    bins = {
        name.rpartition("/")[2]: estimate
        for name, estimate in report.estimates.items()
        if name.startswith("held_out_loss/")
    }
    durations = [*(manifest.seconds for manifest in lineage), report.seconds]
    sweep = (
        Workspace(report.encodings.folder.parents[1]).sweep(report.model.fingerprint) / "sweep.png"
    )
    return render_page(
        "report.html.j2",
        report=report,
        encodings=encodings,
        model=model,
        estimates=[
            (score, report.estimates[score.name]) for score in whole_scores(report.estimates)
        ],
        latency=SCORES["latency_s"],
        missing=missing_distances(len(report.samples), report.features),
        fewest_captions=FEWEST_CAPTIONS,
        attributes=[
            (label, report.estimates[name], report.estimates[f"reference/{name}"])
            for name, label in _ACCURACIES.items()
            if name in report.estimates
        ],
        random=[_tile(report, number) for number in report.shown],
        best=[_tile(report, number) for number in by_score[:extremes]],
        worst=[_tile(report, number) for number in by_score[::-1][:extremes]],
        beside=_beside(report),
        nearest=_nearest(report),
        retrieval=_retrieval(report),
        loss_curve=_loss_curve(history),
        bin_curve=_bin_curve(history),
        bins=bins,
        account=[
            *account_rows(encodings.account),
            ("split", "to train on", model.train_pairs),
            ("split", "held out", model.held_out_pairs),
        ],
        ancestors=lineage,
        machine=hardware(),
        sweep=data_uri(open_image(sweep)) if sweep.exists() else "",
        hours=sum(durations) / 3600,
        settings=[
            *((manifest.stage, _as_yaml(manifest.settings)) for manifest in lineage),
            ("evaluate", _as_yaml(report.config.model_dump(mode="json"))),
        ],
    )


def _tile(report: Report, number: int) -> Tile:
    of_all = report.judged.graded.all_correct
    right = None if of_all is None else bool(of_all[number])
    mark = {None: "", True: "✓ ", False: "✗ "}[right]
    scores = report.judged.clip_score
    note = mark if scores is None else f"{mark}CLIP score {scores[number]:.1f}"
    return Tile(image_uri(report.samples[number]), report.captions[number], note, right)


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


def _history(events: Path) -> dict[str, Points]:
    """Metrics that training logged: name -> (step, value), in order."""
    metrics: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in read_events(events):
        if event["kind"] == "metrics":
            for name, value in event["values"].items():
                metrics[name].append((event["step"], value))
    return dict(metrics)


def _loss_curve(history: dict[str, Points]) -> str:
    names = {"loss": "training (weighted)", "held_out_loss": "held out (plain)"}
    lines = {label: history[name] for name, label in names.items() if name in history}
    return curves(lines, "loss") if lines else ""


def _bin_curve(history: dict[str, Points]) -> str:
    bins = {
        name.rpartition("/")[2]: points
        for name, points in history.items()
        if name.startswith("held_out_loss/")
    }
    lines = {f"noise {name}": points for name, points in bins.items() if len(points) > 1}
    return curves(lines, "held-out loss") if lines else ""


def _as_yaml(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
