"""The worker pool of the configured engine: local processes or Ray actors."""

from __future__ import annotations

from functools import partial

from pipeline.compute.worker_pool import OpenPool, ShardPool
from pipeline.config.run import EngineConfig


def pool_on(engine: EngineConfig, gpus: float = 0) -> OpenPool:
    """The constructor of the pool of an engine. Each worker of a cluster gets `gpus` GPUs."""
    if engine.kind == "local":
        return ShardPool
    from pipeline.compute.ray_pool import RayPool

    return partial(RayPool, address=engine.address, gpus=gpus)
