"""The sections in the order in which they run: what matters most comes first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A generator of figures, as module:function, which takes the name of a device."""

    function: str
    limit_s: float  # after which it is killed


SECTIONS = {
    "environment": Section("tools.gpu_check.hardware:environment", 60),
    "peaks": Section("tools.gpu_check.hardware:peaks", 40),
    "train": Section("tools.gpu_check.training:train", 120),
    "sample": Section("tools.gpu_check.sampling:sample", 60),
    "encode": Section("tools.gpu_check.encoding:encode", 90),
    "depthwise": Section("tools.gpu_check.depthwise:depthwise", 100),
    "exactness": Section("tools.gpu_check.exactness:exactness", 120),
    "optimizers": Section("tools.gpu_check.training:optimizers", 40),
    "checkpoint": Section("tools.gpu_check.training:checkpoint", 40),
    "stage": Section("tools.gpu_check.stage:stage", 140),
    "distributed": Section("tools.gpu_check.distributed:distributed", 60),
    "bench": Section("tools.gpu_check.bench:bench", 80),
}
