"""File names and event log of a trained model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_catalog.storage.cached_files import ensure_local

MODEL_FILE = "denoiser.safetensors"
EVENTS_FILE = "events.jsonl"


def average_file(number: int) -> str:
    """The file name of one of the weight averages. Number 0 is the model itself."""
    return f"denoiser-ema{number}.safetensors" if number else MODEL_FILE


def model_file(path: Path) -> Path:
    """The file of a denoiser, given the file itself or its folder."""
    path = path.expanduser()
    return ensure_local(path / MODEL_FILE if path.is_dir() else path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The metrics and artifact events of an event log that carry a step. Lines that are not JSON
    are skipped, because a kill, a full disk or a failing disk damaged them."""
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
