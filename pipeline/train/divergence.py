"""Detection of diverged training from losses, gradient norms and weights.

Values are read from the device in groups, so that no step waits for the device.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_catalog.model_files import CHECKPOINTS_FOLDER, checkpoints, step_of
from data_catalog.storage.workspace import StageName
from pipeline.compute.ranks import ALONE, Ranks, local_shard
from pipeline.dataset.mixture import TrainingPairs
from pipeline.train.loop import TrainState, TrainStep

# A loss has exploded when it exceeds 100 times the median of the last 200 losses for ten steps in a
# row. A single such step is tolerated: gradient clipping bounds the effect of an odd batch, which
# must not end a training.
_REMEMBERED = 200
_LEAST_REMEMBERED = 20
_TIMES_THE_MEDIAN = 100
_IN_A_ROW = 10
_SHOWN_KEYS = 8
_BATCH_FILE = "bad_batch.txt"


class Diverged(ArithmeticError):
    """A loss, gradient or weight from which the training cannot recover."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step = step  # the first step that shows it


@dataclass(slots=True)
class DivergenceMonitor:
    """Checks every step of a training; reads the device only in `read`."""

    ranks: Ranks = ALONE
    _unread: list[TrainStep] = field(default_factory=list)
    _recent_losses: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _outliers: list[int] = field(default_factory=list)  # steps in a row with an exploded loss
    _newest: tuple[float, float] = (math.nan, math.nan)

    def add(self, step: TrainStep) -> None:
        """Record a step, leaving its values on the device."""
        self._unread.append(step)

    def read(self) -> tuple[float, float]:
        """Check the steps since the last call. Returns loss and gradient norm of the newest step.
        Every rank must call this. Raises Diverged at the first bad step."""
        steps, self._unread = self._unread, []
        if not steps:
            return self._newest
        figures = torch.stack(
            [torch.stack((step.loss, step.gradient_norm)) for step in steps]
        )  # [steps, 2]
        read = [(loss, norm) for loss, norm in self.ranks.mean(figures).tolist()]
        for step, (loss, norm) in zip(steps, read, strict=True):
            self._judge(step.step, loss, norm)
        self._newest = read[-1]
        return self._newest

    def _judge(self, step: int, loss: float, norm: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(step, f"the loss is {loss}")
        if not math.isfinite(norm):
            raise Diverged(step, f"the gradient norm is {norm}, at a loss of {loss:.4g}")
        median = (
            statistics.median(self._recent_losses)
            if len(self._recent_losses) >= _LEAST_REMEMBERED
            else math.inf
        )
        if loss <= _TIMES_THE_MEDIAN * median:
            self._recent_losses.append(loss)
            self._outliers.clear()
            return
        self._outliers.append(step)
        if len(self._outliers) == _IN_A_ROW:
            raise Diverged(
                self._outliers[0],
                f"the loss explodes: for {_IN_A_ROW} steps it exceeds {_TIMES_THE_MEDIAN} times "
                f"its median of {median:.4g}",
            )


def check_weights(state: TrainState, ranks: Ranks = ALONE) -> None:
    """Raise Diverged if a weight, an average or a moment is not finite, so that such a state is
    never saved."""
    finite = torch.stack([local_shard(tensor).isfinite().all() for tensor in _numbers(state)]).all()
    if ranks.any(not finite.item()):
        raise Diverged(state.step, "the weights are no longer finite")


def _numbers(state: TrainState) -> Iterator[Tensor]:
    models = (state.denoiser, *(average.denoiser for average in state.averages))
    yield from (tensor.detach() for model in models for tensor in model.parameters())
    for values in state.optimizer.state_dict()["state"].values():
        yield from (value for value in values.values() if isinstance(value, Tensor))


def describe_batch(pairs: TrainingPairs, numbers: NDArray[np.int64]) -> str:
    """Name the pairs of a batch with values that are not finite, otherwise some of its keys."""
    batch = pairs.batch(numbers)
    finite = batch.latents.isfinite().flatten(1).all(1) & batch.text.isfinite().flatten(1).all(1)
    if non_finite := pairs.keys(numbers[~finite.numpy()]):
        return f"in its batch these pairs contain values that are not finite: {_shown(non_finite)}"
    return f"its batch: {_shown(pairs.keys(numbers))}"


def explain_divergence(
    error: Diverged, out: Path, pairs: TrainingPairs, numbers: NDArray[np.int64], stage: StageName
) -> str:
    """Explain where the training of a stage diverged, with the pairs of that batch, and what to do.
    Writes their keys into the output folder."""
    keys = "".join(f"{key}\n" for key in pairs.keys(numbers))
    (out / _BATCH_FILE).write_text(keys, encoding="utf-8")
    good = [path for path in checkpoints(out / CHECKPOINTS_FOLDER) if step_of(path) < error.step]
    last = good[-1] if good else "none, it diverged before the first one"
    return (
        f"{error} at step {error.step}; {describe_batch(pairs, numbers)} (all keys: "
        f"{out / _BATCH_FILE}).\n"
        f"The last good checkpoint: {last}.\n"
        f"The same settings would fail there again: lower {stage}.lr or train.clip_norm, or "
        "remove bad pairs from the table"
    )


def _shown(keys: list[str]) -> str:
    more = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
