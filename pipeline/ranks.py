"""The processes that train one model together: which of them this one is, its rows, and what they agree on.

Knows nothing of models; distributed.py spreads a model over them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

# A rank that dies is noticed at once, by its closed connections and by the parent. This bounds only how long the
# others wait while the first one writes a checkpoint or decodes samples.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a training."""

    rank: int = 0
    count: int = 1
    agreements: ProcessGroup | None = None  # on the CPU, so that asking does not wait for a GPU

    @property
    def leads(self) -> bool:
        """Whether this process tells, draws and saves."""
        return self.rank == 0

    def rows(self, count: int) -> range:
        """This rank's rows of a global batch of so many."""
        each = count // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def any(self, mine: bool) -> bool:
        """Whether any rank says yes; the same answer in all of them. Every rank must ask."""
        if self.count == 1:
            return mine
        votes = torch.tensor(int(mine))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.agreements)
        return bool(votes)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks; a number that is not finite in one of them is so in all."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count


ALONE = Ranks()


def rank_environment(rank: int, count: int) -> dict[str, str]:
    """What a process must find in its environment to be one of `count` ranks on this machine: torchrun's names."""
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(threads)} if count > 1 else {}
    return {
        **{name: value for name, value in shared.items() if name not in os.environ},
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
    }


@contextmanager
def joined_ranks(device: str, rendezvous: Path) -> Iterator[tuple[Ranks, str]]:
    """Meet the other ranks through a file that none has made before; which rank this is, and its own device."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if count == 1:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{rank}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{rendezvous.absolute()}", rank=rank, world_size=count, timeout=_PATIENCE
    )
    yield Ranks(rank, count, dist.new_group(backend="gloo", timeout=_PATIENCE)), device
    dist.destroy_process_group()  # after a failure it could wait for ranks that are gone


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is spread over the ranks; then every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_share(tensor: Tensor) -> Tensor:
    """The tensor itself, or this rank's share of one that is spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
