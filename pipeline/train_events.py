"""Names of the files that training leaves: known to those who read them without importing torch."""

from __future__ import annotations

from pathlib import Path

MODEL_FILE = "denoiser.safetensors"
EVENTS_FILE = "events.jsonl"


def average_file(number: int) -> str:
    """Name of the file of one of the averages; the first is the model."""
    return f"denoiser-ema{number}.safetensors" if number else MODEL_FILE


def model_file(path: Path) -> Path:
    """A denoiser's file, which is this path or lies in this folder."""
    path = path.expanduser()
    return path / MODEL_FILE if path.is_dir() else path
