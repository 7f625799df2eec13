"""Inputs of training steps: batches and random choices, prepared some steps ahead for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pipeline.compute.ranks import Ranks
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import StoredBatch
from pipeline.dataset.mixture import TrainingPairs
from pipeline.train.loss import StepRandomness, step_randomness
from tld_model.config import DenoiserConfig

Item = TypeVar("Item")


class StepInputs(NamedTuple):
    """What one rank needs for one step, on the CPU."""

    batch: StoredBatch
    choices: StepRandomness


def step_inputs(
    pairs: TrainingPairs,
    model: DenoiserConfig,
    config: TrainConfig,
    first_step: int,
    ranks: Ranks,
) -> Iterator[StepInputs]:
    """The inputs of all remaining steps. Random choices are made for the global batch, of which
    each rank gets its rows."""
    own = ranks.rows(config.batch_size)
    rows = slice(own.start, own.stop)
    batches = pairs.batches(config.batch_size, config.seed, first_step)
    for step in range(first_step, config.steps):
        numbers, epochs = next(batches)
        batch = pairs.stored_batch(numbers[rows], epochs[rows])
        choices = step_randomness(
            config, model, config.batch_size, step, samples_posterior=pairs.has_spread
        )
        yield StepInputs(batch, choices.rows(rows))


def pinned(inputs: Iterator[StepInputs]) -> Iterator[StepInputs]:
    """The same inputs in pinned memory, from which a GPU copies while the host goes on."""
    return (StepInputs(batch.pinned(), choices.pinned()) for batch, choices in inputs)


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The same items in the same order, up to `count` of which a thread has made in advance."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:

        def submit() -> None:
            waiting.append(thread.submit(lambda: next(items, None)))

        waiting = deque[Future[Item | None]]()
        for _ in range(count):
            submit()
        while (item := waiting.popleft().result()) is not None:
            submit()
            yield item
