"""A training's state on disk: written by rename, the newest few kept, read back where a training goes on.

Knows nothing of what a step does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pipeline.train import TrainState

_KEPT = 2


def save_checkpoint(state: TrainState, folder: Path) -> Path:
    """Write the state by rename, then drop all but the newest checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state.step:08d}.pt"
    unfinished = path.with_suffix(".partial")
    content = {
        "step": state.step,
        "denoiser": state.denoiser.state_dict(),
        "averages": {str(average.decay): average.denoiser.state_dict() for average in state.averages},
        "optimizer": state.optimizer.state_dict(),
    }
    with unfinished.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    for old in checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def resume(state: TrainState, folder: Path, device: str) -> None:
    """Put the state where the newest readable checkpoint left it; without one it stays at step 0."""
    for path in reversed(checkpoints(folder)):
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            continue  # a damaged file: the one before it is as good, only older
        state.denoiser.load_state_dict(content["denoiser"])
        for average in state.averages:
            average.denoiser.load_state_dict(content["averages"][str(average.decay)])
        state.optimizer.load_state_dict(content["optimizer"])
        state.step = int(content["step"])
        return
