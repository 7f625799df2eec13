"""A training's state spread over ranks: copies that average their gradients, or shares of one.

Knows nothing of losses or files.
"""

from __future__ import annotations

import warnings

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


def distribute(state: TrainState, config: TrainConfig, ranks: Ranks, device: str) -> None:
    """Make the state one of several ranks' that step together: each with the whole model, gradients
    averaged (Li et al., 2020, PyTorch Distributed), or each with a share of weights, averages and
    moments (FSDP: Zhao et al., 2023). The state dict is that of the plain denoiser in both.

    Of the parts of a step (train.accumulate) copies average their gradients once, after the last.
    Shares do after each: whole gradients kept meanwhile would take the memory that sharding
    saves."""
    if ranks.count == 1:
        return
    if config.sharding == "fsdp":
        shard(state, config, init_device_mesh(torch.device(device).type, (ranks.count,)))
    else:
        # The depthwise kernel [hidden, 1, 3, 3] has a dimension of one, whose stride is a matter of
        # taste.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        own = [device] if device.startswith("cuda") else None
        network = DistributedDataParallel(
            state.denoiser, device_ids=own, forward_sync_buffers=False
        )
        state.network, state.no_sync = network, network.no_sync


def shard(state: TrainState, config: TrainConfig, mesh: DeviceMesh) -> None:
    """Shard a state that is still on the CPU; what a rank keeps moves to its device."""
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
    """A group of weights a block, gathered when the block is used; the rest is a group of its
    own."""
    for part in (*denoiser.blocks, denoiser):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def _like(value: Tensor, weight: DTensor) -> Tensor:
    """An optimizer's number for each element of a weight, spread as the weight is; others stay
    whole."""
    if value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
