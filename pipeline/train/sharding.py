"""Data-parallel (DDP) and sharded (FSDP) training: the training state distributed over ranks."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline.compute.ranks import Ranks
from pipeline.config.train import TrainConfig
from pipeline.train.loop import TrainState
from pipeline.train.optimizers import make_optimizer
from tld_model.denoiser import Denoiser

# The buffers of all ranks are equal and constant. torch 2.13 renamed the option.
_DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers": False
}


def distribute(state: TrainState, config: TrainConfig, ranks: Ranks, device: str) -> None:
    """Prepare the state for several ranks that step together. Each rank holds the whole model and
    gradients are averaged (Li et al., 2020, PyTorch Distributed), or each holds a shard of weights,
    averages and moments (FSDP: Zhao et al., 2023). In both cases the state dict is that of the
    plain denoiser.

    With gradient accumulation (train.accumulate) whole models average their gradients once, after
    the last part. Shards do so after every part, because unreduced gradients would take the memory
    that sharding saves."""
    if ranks.count == 1:
        return
    if config.sharding == "fsdp":
        shard(state, config, init_device_mesh(torch.device(device).type, (ranks.count,)))
    else:
        # The depthwise kernel [hidden, 1, 3, 3] has a dimension of size one, whose stride is
        # arbitrary.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        own = [device] if device.startswith("cuda") else None
        network = DistributedDataParallel(state.denoiser, device_ids=own, **_KEEP_BUFFERS)
        state.network, state.no_sync = network, network.no_sync


def shard(state: TrainState, config: TrainConfig, mesh: DeviceMesh) -> None:
    """Shard a state that is still on the CPU; the shard of a rank moves to its device."""
    moments = state.optimizer.state_dict()
    for denoiser in (state.denoiser, *(average.denoiser for average in state.averages)):
        _shard_denoiser(denoiser, mesh)
    state.optimizer = make_optimizer(state.denoiser, config)
    weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    for number, values in moments["state"].items():
        moments["state"][number] = {
            name: _like(value, weights[number]) for name, value in values.items()
        }
    state.optimizer.load_state_dict(moments)


def _shard_denoiser(denoiser: Denoiser, mesh: DeviceMesh) -> None:
    """Shard each block as one group of weights, gathered when the block is used; the remaining
    weights are another group."""
    for part in (*denoiser.blocks, denoiser):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def _like(value: Tensor, weight: DTensor) -> Tensor:
    """Distribute an optimizer state tensor of a weight's shape like the weight; others stay
    whole."""
    if value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
