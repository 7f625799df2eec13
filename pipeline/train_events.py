"""Names of the files that training leaves: known to those who read them without importing torch."""

from __future__ import annotations

MODEL_FILE = "denoiser.safetensors"
EVENTS_FILE = "events.jsonl"
