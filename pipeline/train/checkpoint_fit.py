"""Whether a checkpoint fits the training that reads it: compared before anything is loaded, so that
a training never goes on from half a state.

A checkpoint of another version of the project, or of a training with other averages or another
optimizer, is whole and still does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from pipeline.train.loop import TrainState

LAYOUT = 1  # raised by hand when what a checkpoint holds changes its meaning


def misfit(state: TrainState, content: Any) -> str:
    """What keeps a state from being loaded, in words; "" where nothing does."""
    return next(_misfits(state, content), "")


def _misfits(state: TrainState, content: Any) -> Iterator[str]:
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        yield "it holds no state of a training"
        return
    layout = content.get("layout", LAYOUT)  # the first ones did not say
    if layout != LAYOUT:
        newer = isinstance(layout, int) and layout > LAYOUT
        yield f"its layout is {layout}, of {'a newer' if newer else 'another'} version of tld"
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
        yield f"{what} are not there"
        return
    for name in (*ours, *theirs):
        if name not in theirs:
            yield f"{what} lack {name}"
        elif name not in ours:
            yield f"{what} have {name}, which the model does not"
        elif not isinstance(theirs[name], Tensor) or theirs[name].shape != ours[name].shape:
            yield f"{what} have another shape of {name}"


def _optimizer(state: TrainState, theirs: Any) -> Iterator[str]:
    """Its groups, and what it remembers of each weight, must be as this optimizer lays them out."""
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
    """A number for the whole weight, or one for each of its elements."""
    return isinstance(value, Tensor) and value.shape in ((), weight.shape)
