"""Messages to MLflow: metrics, params, inputs, artifacts and the end of a run, as JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_catalog.figures import ReportFigures
from data_catalog.storage.manifest import Manifest
from flows.tracking.outbox import Message
from pipeline.stages.dag import STAGES

OUR_ID = "tld.id"  # tag of a run that began while MLflow was unreachable
_DIGEST_LENGTH = 36  # what MLflow stores of a data set's digest


def metrics_message(run_id: str, values: Mapping[str, float], step: int) -> Message:
    """Metrics of a step."""
    now = now_ms()
    return Message(
        run_id, "metrics", [[name, float(value), now, step] for name, value in values.items()]
    )


def artifact_message(root: Path, run_id: str, path: Path, folder: str = "") -> Message:
    """A file, to be copied into a folder of the run's artifacts."""
    return Message(run_id, "artifact", [relative_to_root(root, path), folder or None])


def image_message(root: Path, run_id: str, path: Path, name: str, step: int) -> Message:
    """An image of a step. Those of one name are shown with a slider over the steps."""
    return Message(run_id, "image", [relative_to_root(root, path), name, step, now_ms()])


def report_messages(root: Path, run_id: str, report: Manifest) -> Iterator[Message]:
    """Scores, grid and page of a report, for the parent run: those of a distilled model as
    distilled/…"""
    scores = ReportFigures.of(report).scores
    folder = "distilled" if "distill" in report.parents else ""
    named = {f"{folder}/{name}" if folder else name: value for name, value in scores.items()}
    yield metrics_message(run_id, named, step=0)
    for file in ("grid.png", "report.html"):
        yield artifact_message(root, run_id, report.file(file), folder)


def params_message(run_id: str, settings: Mapping[str, str]) -> Message:
    """Settings by their names as they are typed, such as train.steps."""
    return Message(run_id, "params", dict(settings))


def inputs_message(run_id: str, parents: Mapping[str, Manifest]) -> Message:
    """The outputs that a stage reads, as MLflow data sets. Two phases may share one."""
    outputs = {manifest.digest: manifest for manifest in parents.values()}
    return Message(run_id, "inputs", [_dataset(manifest) for manifest in outputs.values()])


def end_message(run_id: str, status: str) -> Message:
    """The end of a run, with its status and time."""
    return Message(run_id, "end", [status, now_ms()])


def relative_to_root(root: Path, path: Path) -> str:
    """A path relative to the workspace, because that may be moved; the whole path if it lies
    elsewhere."""
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def now_ms() -> int:
    """The time in MLflow's unit, milliseconds."""
    return int(time.time() * 1000)


def _dataset(manifest: Manifest) -> dict[str, str]:
    return {
        "name": STAGES[manifest.stage].makes,
        "digest": manifest.digest[:_DIGEST_LENGTH],
        "folder": f"{manifest.folder.parent.name}/{manifest.folder.name}",
        "rows": str(manifest.rows),
        "made_by": manifest.made_by,
    }
