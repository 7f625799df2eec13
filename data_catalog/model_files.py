"""Names of the files of a trained model, and its event log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_catalog.storage.cached_files import ensure_local

MODEL_FILE = "denoiser.safetensors"
EVENTS_FILE = "events.jsonl"


def average_file(number: int) -> str:
    """Name of the file of one of the averages; the first is the model."""
    return f"denoiser-ema{number}.safetensors" if number else MODEL_FILE


def model_file(path: Path) -> Path:
    """A denoiser's file, which is this path or lies in this folder."""
    path = path.expanduser()
    return ensure_local(path / MODEL_FILE if path.is_dir() else path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file that tell of a step; a line that a kill or a full disk cut short is left
    out, as is one that a failing disk changed."""
    events = []
    for line in (
        path.read_text(errors="replace", encoding="utf-8").splitlines() if path.exists() else []
    ):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event.get("kind") in ("metrics", "artifact") and "step" in event:
            events.append(event)
    return events
