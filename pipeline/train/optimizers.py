"""Optimizers (AdamW, Muon) and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.config.train import TrainConfig
from pipeline.train.muon import Muon
from tld_model.denoiser import Denoiser

_REMEMBERED: dict[type[Optimizer], set[str]] = {
    AdamW: {"step", "exp_avg", "exp_avg_sq"},
    Muon: {"momentum_buffer"},
}


@dataclass(frozen=True, slots=True)
class Optimizers:
    """Several optimizers, each of its own weights, used as one; the state has the layout of one."""

    parts: tuple[Optimizer, ...]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of all parts, in which each weight has its number among all weights."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            first = sum(len(group["params"]) for group in groups)
            own = part.state_dict()
            state |= {first + number: memory for number, memory in own["state"].items()}
            groups += [
                {**group, "params": [first + n for n in group["params"]]}
                for group in own["param_groups"]
            ]
        return {"state": state, "param_groups": groups}

    def remembers(self, number: int) -> set[str]:
        """Names of the state tensors of a weight, given its number among all weights."""
        for part in self.parts:
            count = sum(len(group["params"]) for group in part.param_groups)
            if number < count:
                return _REMEMBERED[type(part)]
            number -= count
        raise IndexError(number)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of `state_dict`. The settings of the groups, such as weight decay, stay
        those of this optimizer."""
        first, groups = 0, list(state["param_groups"])
        for part in self.parts:
            own, groups = groups[: len(part.param_groups)], groups[len(part.param_groups) :]
            own = [
                {**group, **present, "params": group["params"]}
                for present, group in zip(part.param_groups, own, strict=True)
            ]
            numbers = [number for group in own for number in group["params"]]
            part.load_state_dict(
                {
                    "state": {n - first: state["state"][n] for n in numbers if n in state["state"]},
                    "param_groups": [
                        {**group, "params": [n - first for n in group["params"]]} for group in own
                    ],
                }
            )
            first += len(numbers)


def make_optimizer(
    denoiser: Denoiser, config: TrainConfig, threads: CoreThreads = ONE_THREAD
) -> Optimizers:
    """AdamW (Loshchilov and Hutter, 2019) for all weights, or for those that Muon does not update.

    Muon's updates are orthogonal matrices. Scaled by 0.2 sqrt(longer side) they are as large as
    AdamW's, so that both can use one learning rate and one weight decay (Liu et al., 2025, eq. 4).
    """
    matrices = hidden_matrices(denoiser) if config.optimizer == "muon" else []
    theirs = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in denoiser.parameters() if id(parameter) not in theirs]
    adamw = AdamW(
        rest, lr=config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    if not matrices:
        return Optimizers((adamw,))
    muon = Muon(matrices, threads, lr=config.lr, weight_decay=config.weight_decay)
    return Optimizers((muon, adamw))


def hidden_matrices(denoiser: Denoiser) -> Sequence[nn.Parameter]:
    """The weight matrices inside the blocks, which Muon updates. They include 1x1 convolutions,
    which are written as linear layers. Depthwise kernels, one filter per channel, are not
    matrices."""
    return [parameter for parameter in denoiser.blocks.parameters() if parameter.ndim == 2]


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of the update after `step` steps: linear warm-up, then a cosine decay to zero
    (Loshchilov and Hutter, 2017), or constant until a decay by 1 - sqrt(progress) (WSD: Hu et al.,
    2024, MiniCPM; its shape: Hägele et al., 2024, Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations)."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        in_decay = step - config.trunk_steps
        return config.lr * (1 - math.sqrt(in_decay / config.decay_steps) if in_decay > 0 else 1)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))
