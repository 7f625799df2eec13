"""The summary of a run on Prefect's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from flows.orchestration import run_summary
from pipeline.config.load import load_config
from pipeline.stages.freshness import StageStatus
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY, small


def test_scores_are_one_table_without_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"prompt_accuracy": 0.5, "accuracy/shape": 0.7, "clip_score": 90.0}
    report = Manifest(
        stage="evaluate",
        version=1,
        fingerprint="f",
        digest="d",
        rows=1,
        shards=(),
        figures={"scores": scores, "intervals": {"clip_score": [89, 91]}},
        settings={},
        parents={},
        made_by="run",
        made_at="",
        seconds=1,
        folder=tmp_path,
    )
    (tmp_path / "report.html").touch()
    statuses = [StageStatus("evaluate", "fresh", report, tmp_path)]
    monkeypatch.setattr(run_summary, "run_statuses", lambda _: statuses)
    inputs = RunInputs(load_config(TINY, small(tmp_path)))
    page = run_summary.run_page(inputs, "this", lambda run_id, file: f"http://host/{run_id}/{file}")
    assert "| prompt_accuracy | 0.5 | < 20 captions |\n| clip_score | 90 | 89 to 91 |\n" in page
    assert "accuracy/shape" not in page
    assert "[This run in MLflow](http://host/this/)" in page
    assert "[`run`](http://host/run/)" in page
    assert f"[in MLflow](http://host/run/report.html), file `{tmp_path}/report.html`" in page
