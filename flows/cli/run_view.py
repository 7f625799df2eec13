"""What a run does, as text: its stages, progress and curves, or how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.model_files import EVENTS_FILE, read_last_events
from data_catalog.scores import is_part
from data_catalog.storage.run_records import RunRecord, StageRecord, StoredRecord, folder_at_work
from flows.terminal.duration import duration
from flows.terminal.sparkline import sparkline

_SILENT_S = 30.0  # without anything new, before it is said
_NO_CURVES = ("lr", "gradient_norm", "images_per_s")


def at_work_text(stored: StoredRecord, root: Path) -> str:
    """A run at work: who, what, how far, and the curves of a training."""
    return "\n".join(_at_work_lines(stored, root))


def ended_text(stored: StoredRecord) -> str:
    """A run that has ended: when, how, and its log."""
    record = stored.record
    took = duration((record.updated_at - record.started_at).total_seconds())
    lines = [record.command, f"  began {_clock(record.started_at)}, {_end(stored)} after {took}"]
    if record.ended != "finished":
        lines += [f"  {line}" for line in record.lines[-1:]]
        lines.append(f"  log: {stored.log}")
    return "\n".join(lines)


def _end(stored: StoredRecord) -> str:
    record = stored.record
    at = f" in {record.stage}" if record.stage else ""
    if record.ended is None:
        return f"was killed{at}, or its machine stopped; the last sign of it came"
    return record.ended if record.ended == "finished" else f"{record.ended}{at}"


def _at_work_lines(stored: StoredRecord, root: Path) -> Iterator[str]:
    record, now = stored.record, datetime.now(UTC)
    since = duration((now - record.started_at).total_seconds())
    process = record.process
    yield record.command
    yield (
        f"  since {_clock(record.started_at)} ({since}), process {process.pid} on {process.host}"
    )
    if interrupted_at := stored.interrupted_at:
        yield f"  is stopping, since {_clock(interrupted_at)}"
    width = max((len(stage.title) for stage in record.stages), default=0)
    if not record.stage:
        yield f"  {record.note or 'between two stages'}"
    for stage in record.stages:
        yield f"  {stage.title:{width}}  {_state(stage, record)}"
    silence = (now - record.updated_at).total_seconds()
    if silence > _SILENT_S:
        yield f"  nothing new for {duration(silence)}"
    if folder := folder_at_work(root, process):
        yield from _training_lines(folder)
    yield f"  log: {stored.log}"


def _state(stage: StageRecord, record: RunRecord) -> str:
    if stage.state != "at work":
        return stage.state
    done, total = record.done, record.total
    count = f"{done:,}/{total:,} ({done / total:.0%})" if total else ""
    return "  ".join(filter(None, (count, record.note))) or "starting"


def _training_lines(folder: Path) -> Iterator[str]:
    """The last part of the curves of a training, and its newest samples; nothing of another
    stage."""
    events = read_last_events(folder / EVENTS_FILE)
    curves = _curves(events)
    width = max(map(len, curves), default=0)
    for name, points in curves.items():
        yield f"  {name:{width}}  {sparkline([value for _, value in points])}  {_ends(points)}"
    grids = [folder / event["path"] for event in events if event.get("path")]
    grids = [grid for grid in grids if grid.exists()] or sorted(folder.glob("samples/*.png"))
    if grids:
        yield f"  samples: {grids[-1]}"


def _ends(points: Sequence[tuple[int, float]]) -> str:
    """The first and the last value of a curve."""
    (first, before), (last, now) = points[0], points[-1]
    if first == last:
        return f"{now:.4g} at step {last:,}"
    return f"{before:.4g} -> {now:.4g}, steps {first:,} to {last:,}"


def _curves(events: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The values of each loss and score, by step."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for name, value in event.get("values", {}).items():
            if name not in _NO_CURVES and not is_part(name):
                curves.setdefault(name, []).append((event["step"], value))
    return curves


def _clock(moment: datetime) -> str:
    """A time of this machine; with the date if it is not today's."""
    local = moment.astimezone()
    today = datetime.now().astimezone().date() == local.date()
    return f"{local:%H:%M:%S}" if today else f"{local:%Y-%m-%d %H:%M}"
