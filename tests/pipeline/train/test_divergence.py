"""When a training no longer makes sense: which step is named, what passes, what is never saved."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.config.train import TrainConfig
from pipeline.train.divergence import Diverged, DivergenceMonitor, check_weights
from pipeline.train.loop import TrainStep, initial_state
from tests.support.training import MODEL, SETTINGS


def fed(
    losses: list[float], norms: list[float] | None = None, every: int = 20
) -> DivergenceMonitor:
    """A watch that was shown steps 1, 2, … and read now and then."""
    monitor = DivergenceMonitor()
    for step, (loss, norm) in enumerate(zip(losses, norms or [1.0] * len(losses), strict=True), 1):
        monitor.add(TrainStep(step, torch.tensor(loss), torch.tensor(norm), lr=1e-3))
        if step % every == 0:
            monitor.read()
    monitor.read()
    return monitor


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_step_is_named_although_losses_are_read_later(bad: float) -> None:
    with pytest.raises(Diverged, match=f"the loss is {bad}") as raised:
        fed([0.5] * 6 + [bad] * 14)
    assert raised.value.step == 7
    with pytest.raises(Diverged, match="the gradient norm") as raised:
        fed([0.5] * 10, [1.0] * 3 + [bad] * 7)
    assert raised.value.step == 4


def test_a_loss_explodes_where_it_stays_far_over_its_median() -> None:
    calm = [1.0 / step for step in range(1, 41)]
    with pytest.raises(Diverged, match="explodes") as raised:
        fed(calm + [300.0] * 10)
    assert raised.value.step == 41
    fed(calm + [300.0] * 9 + calm)
    fed(calm + [3.0] * 100)
    fed([900.0, 300.0, 1.0, *calm])


def test_the_newest_figures_are_told_once_read() -> None:
    monitor = fed([3.0, 2.0], [0.5, 0.25])
    assert monitor.read() == (2.0, 0.25)


def test_weights_that_are_not_finite_are_no_state_to_save() -> None:
    state = initial_state(TrainConfig(**SETTINGS), MODEL, "cpu")
    check_weights(state)
    next(state.ema.parameters())[0] = math.nan
    with pytest.raises(Diverged, match="no longer finite"):
        check_weights(state)
