"""Numbers of the workers of a pool, by which they share the GPUs: a worker knows its own."""

from __future__ import annotations

import multiprocessing as mp

_PREFIX = "worker-"


def worker_name(number: int) -> str:
    """The name of the process that is this worker, from 0. A process that replaces it has the same
    one."""
    return f"{_PREFIX}{number}"


def own_worker_number() -> int:
    """The number of this process among the workers of its pool; 0 in any other process."""
    name = mp.current_process().name
    return int(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else 0
