"""report.html: one page, opens without network, tells a person how the run went. Knows no models."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from data_catalog import shapes
from data_catalog.manifest import Manifest
from pipeline.config import EvaluateConfig

_EXPLAINED = {
    "prompt_accuracy": "share of samples in which all attributes of the caption are read back from the pixels",
    "clip_score": "100 × cosine of the CLIP embeddings of sample and caption; higher is better",
    "clip_score_reference": "the same for the held-out pictures: about what can be reached",
    "cmmd": "CMMD to the held-out pictures; 0 is best",
    "frechet_distance": "Fréchet distance of CLIP features to the held-out pictures; 0 is best; not an Inception FID",
    "held_out_loss": "mean squared error of the clean latent on held-out pairs, over all noise levels",
}


def render_report(
    encodings: Manifest,
    model: Manifest,
    config: EvaluateConfig,
    scores: dict[str, float],
    grid: Image.Image,
    comparison: Image.Image,
    history: list[dict[str, Any]],
) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        encodings=encodings,
        model=model,
        config=config,
        explained=[(name, scores[name], text) for name, text in _EXPLAINED.items() if name in scores],
        attributes=[
            (name, scores[f"accuracy/{name}"], scores[f"reference/accuracy/{name}"])
            for name in shapes.ATTRIBUTE_NAMES
            if f"accuracy/{name}" in scores
        ],
        noise_bins=[(n.rpartition("/")[2], v) for n, v in scores.items() if n.startswith("held_out_loss/")],
        account=_account_rows(encodings.figures["account"]),
        grid=_data_uri(grid),
        comparison=_data_uri(comparison),
        curve=_data_uri(_loss_curve(history)) if history else "",
    )


def _account_rows(account: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Every row of the URL table: (kind, cause, rows); the last lines add up to the first."""
    rows = [("table", "rows of the URL table", account["rows"])]
    rows += [("rejected", cause, count) for cause, count in account["rejected"].items()]
    rows += [("failed", cause, count) for cause, count in account["failed"].items()]
    rows += [("left out", cause, count) for cause, count in account["dropped"].items()]
    return [*rows, ("encoded", "pairs encoded", account["encoded"])]


def _loss_curve(history: list[dict[str, Any]]) -> Image.Image:
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, label in (("loss", "training loss (weighted)"), ("held_out_loss", "held-out loss (plain)")):
        points = [(event["step"], event["values"][name]) for event in history if name in event["values"]]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else None)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
