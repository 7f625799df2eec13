"""A run small enough for tests: real in every part, seconds long. Its model learns next to
nothing."""

from __future__ import annotations

from pathlib import Path

TINY = Path(__file__).parents[2] / "conf/tiny.yaml"


def small(root: Path | str, **changed: object) -> list[str]:
    """Overrides that make conf/tiny.yaml small."""
    settings: dict[str, object] = {
        "root": root,
        "download.limit": 120,
        "download.shard_size": 40,
        "model.width": 64,
        "model.layers": 1,
        "train.steps": 12,
        "train.batch_size": 16,
        "train.lr": 1e-3,
        "train.warmup_steps": 2,
        "train.checkpoint_every": 4,
        "train.validate_every": 6,
        "train.sample_every": 6,
        "train.log_every": 2,
        "evaluate.prompts": 12,
        "evaluate.steps": 4,
        "evaluate.grid": 6,
        "evaluate.require": "{}",  # which a model of 12 steps does not reach
    }
    settings |= {name.replace("__", "."): value for name, value in changed.items()}
    return [f"{name}={value}" for name, value in settings.items()]
