"""Output files of a comparison: comparison.html and .png for people, .json for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.figures import ModelFigures
from data_catalog.scores import FEWEST_CAPTIONS, SCORES, is_part, missing_distances
from data_catalog.storage.files import make_folder, replacing, write_atomically
from pipeline.evaluate.compare import Comparison
from pipeline.evaluate.score_rows import Row
from pipeline.reporting.image_grid import image_grid
from pipeline.reporting.render import image_uri, render_page
from pipeline.stages.setting_changes import run_changes

_EXTREMES = 6  # prompts shown with the largest gain and the largest loss of the second run
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt on the page."""

    caption: str
    images: list[str]  # of A, of B, held out; data URIs
    note: str


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write all three files, which show both samples and the held-out image of each prompt."""
    runs, captions, real, rows = (
        comparison.runs,
        comparison.captions,
        comparison.real,
        comparison.rows,
    )
    first, second = comparison.drawn
    make_folder(folder)
    before, after = first.judged.clip_score, second.judged.clip_score
    assert before is not None, "check_comparable requires CLIP"
    assert after is not None, "check_comparable requires CLIP"
    gains = after - before
    order = gains.argsort(descending=True).tolist()
    extremes = min(_EXTREMES, len(order) // 2)
    shown = _evenly_spaced(len(order), _SHOWN)

    def prompt(i: int) -> _Prompt:
        images = [image_uri(source[i]) for source in (first.samples, second.samples, real)]
        return _Prompt(
            captions[i],
            images,
            f"CLIP score {before[i]:.1f} → {after[i]:.1f}",
        )

    page = render_page(
        "compare.html.j2",
        runs=[(run, ModelFigures.of(run.model)) for run in runs],
        rows=rows,
        explained=[SCORES[row.name] for row in rows if not is_part(row.name)],
        differences=run_changes(runs[0].config, runs[1].config),
        seconds=[samples.seconds_per_image for samples in comparison.drawn],
        prompts=len(captions),
        missing=missing_distances(len(captions), first.judged.features),
        fewest_captions=FEWEST_CAPTIONS,
        spread=[prompt(i) for i in shown],
        gains=[prompt(i) for i in order[:extremes]],
        losses=[prompt(i) for i in order[::-1][:extremes]],
    )
    write_atomically(folder / "comparison.html", page)
    triples = [image for i in shown for image in (first.samples[i], second.samples[i], real[i])]
    labels = [label for i in shown for label in (f"A: {captions[i]}", "B", "held out")]
    with replacing(folder / "comparison.png") as unfinished:
        image_grid(triples, labels, columns=6).save(unfinished)
    scores = {row.name: _as_json(row) for row in rows}
    names = {"A": runs[0].name, "B": runs[1].name}
    write_atomically(
        folder / "comparison.json", json.dumps({"runs": names, "scores": scores}, indent=2) + "\n"
    )


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "first": row.first.as_json(),
        "second": row.second.as_json(),
        "difference": row.difference.as_json(),
        "verdict": row.verdict,
    }


def _evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` indices, evenly spaced over `count`."""
    return [round(float(number)) for number in np.linspace(0, count - 1, min(count, limit))]
