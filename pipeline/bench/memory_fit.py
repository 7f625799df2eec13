"""What fits into a device's memory: figures of a step without and with train.checkpoint_blocks."""

from __future__ import annotations

from typing import Any

from pipeline.bench.measure import mib
from pipeline.config.run import RunConfig
from pipeline.config.train import TrainConfig
from pipeline.train.step_memory import (
    StepMemories,
    StepMemory,
    images_at_a_time,
    parts_that_fit,
)


def memory_fit(memories: StepMemories, train: TrainConfig, usable: int) -> dict[str, Any]:
    """What one process needs for a step as configured, how many images at a time have room in the
    usable bytes, and the least train.accumulate that fits; without and with
    train.checkpoint_blocks. A projection: `step_memories`."""
    ranks = train.launch.ranks
    images = images_at_a_time(train, ranks)

    def way(memory: StepMemory) -> dict[str, int | None]:
        most = memory.images_in(usable)
        return {
            "mib": mib(memory.of(images)),
            "most_images": most,
            "accumulate": parts_that_fit(train, ranks, most),
        }

    return {
        "images_at_a_time": images,
        "usable_mib": mib(usable),
        "checkpoint_blocks": train.checkpoint_blocks,
        "configured_accumulate": train.accumulate,
        "without": way(memories.plain),
        "with": way(memories.recomputed),
    }


def in_parts_that_fit(config: RunConfig, memory: StepMemory, usable: int) -> RunConfig:
    """The settings with the least train.accumulate that lets the whole batch pass through one
    device, or as they are if none does."""
    parts = parts_that_fit(config.train, 1, memory.images_in(usable))
    if parts is None:
        return config
    train = config.train.model_copy(update={"accumulate": parts})
    return config.model_copy(update={"train": train})
