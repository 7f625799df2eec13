"""Compatibility check of a checkpoint with the training that resumes from it.

The check runs before anything is loaded, so a training never continues from half a state. A
checkpoint of another version of the project, or of a training with other averages or another
optimizer, is undamaged and still does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from pipeline.train.loop import TrainState
from tld_model.training_state import state_problem


def misfit(state: TrainState, content: Any) -> str:
    """Why a checkpoint cannot be loaded into a state, or "" if it can."""
    return next(_misfits(state, content), "")


def _misfits(state: TrainState, content: Any) -> Iterator[str]:
    if problem := state_problem(content):
        yield problem
        return
    yield from _weights("the weights", state.denoiser.state_dict(), content.get("denoiser"))
    averages = content.get("averages")
    for average in state.averages:
        stored = averages.get(str(average.decay)) if isinstance(averages, dict) else None
        if stored is None:
            yield f"it has no average of decay {average.decay}"
            return
        yield from _weights(
            f"the average of decay {average.decay}", average.denoiser.state_dict(), stored
        )
    yield from _optimizer(state, content.get("optimizer"))


def _weights(what: str, ours: Mapping[str, Tensor], theirs: Any) -> Iterator[str]:
    if not isinstance(theirs, dict):
        yield f"{what} are missing"
        return
    for name in (*ours, *theirs):
        if name not in theirs:
            yield f"{what} lack {name}"
        elif name not in ours:
            yield f"{what} have {name}, which the model lacks"
        elif not isinstance(theirs[name], Tensor) or theirs[name].shape != ours[name].shape:
            yield f"{what} have another shape of {name}"


def _optimizer(state: TrainState, theirs: Any) -> Iterator[str]:
    """The groups and the state of each weight must have the layout of this optimizer."""
    ours = state.optimizer.state_dict()["param_groups"]
    weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    try:
        numbers = [group["params"] for group in theirs["param_groups"]]
        same = numbers == [group["params"] for group in ours] and all(
            set(memory) == state.optimizer.remembers(number)
            and all(_is_of(value, weights[number]) for value in memory.values())
            for number, memory in theirs["state"].items()
        )
    except (AttributeError, IndexError, KeyError, TypeError):
        same = False
    if not same:
        yield "it is the state of another optimizer"


def _is_of(value: Any, weight: Tensor) -> bool:
    """Whether this is one number for the whole weight, or one for each of its elements."""
    return isinstance(value, Tensor) and value.shape in ((), weight.shape)
