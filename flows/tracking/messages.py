"""Messages to MLflow: metrics, params, inputs, artifacts and the end of a run, as JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_catalog.figures import ReportFigures
from data_catalog.storage.manifest import Manifest
from flows.tracking.outbox import Message
from pipeline.config.run import RunConfig
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


def report_messages(root: Path, run_id: str, report: Manifest) -> Iterator[Message]:
    """Scores and grid of a report, for the parent run: those of a distilled model as
    distilled/…"""
    scores = ReportFigures.of(report).scores
    folder = "distilled" if "distill" in report.parents else ""
    named = {f"{folder}/{name}" if folder else name: value for name, value in scores.items()}
    yield metrics_message(run_id, named, step=0)
    yield artifact_message(root, run_id, report.file("grid.png"), folder)


def params_message(run_id: str, config: RunConfig, stage: str) -> Message:
    """The settings of a stage."""
    sections = {stage: getattr(config, stage)}
    if stage == "train":
        sections["model"] = config.model
    params = {
        name if section == stage else f"{section}.{name}": str(value)
        for section, settings in sections.items()
        for name, value in settings.model_dump(mode="json").items()
    }
    return Message(run_id, "params", params)


def inputs_message(run_id: str, parents: Mapping[str, Manifest]) -> Message:
    """The outputs that a stage reads, as MLflow data sets."""
    return Message(run_id, "inputs", [_dataset(manifest) for manifest in parents.values()])


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
