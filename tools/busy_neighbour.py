"""How much speed training and sampling on a CPU keep beside one busy process.

python -m tools.busy_neighbour conf/tiny.yaml train.optimizer=adamw

Training steps and samples of the config's model, on random inputs, alone and beside one process
that only counts, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.bench.model_speed import random_batch
from pipeline.compute.core_threads import core_threads
from pipeline.compute.devices import torch_threads
from pipeline.compute.inference import inference_on
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.train.loop import initial_state, train_step
from pipeline.train.loss import step_randomness
from tld_model.denoiser import Denoiser
from tld_model.sampler import guided, noise_levels

_TURNS = 5
_TURN_S = 6.0
_SAMPLES = 16


def main() -> None:
    """Print images per second alone and beside the busy process, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s CONFIG [SETTING=VALUE …]")
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    print("images/s, median (slowest to fastest) of", _TURNS, "turns")
    for name, work in (("train", _training(config)), ("sample", _sampling(config))):
        alone, beside = _in_turns(work)
        kept = statistics.median(beside) / statistics.median(alone)
        print(f"{name:7} alone {_shown(alone)}   busy {_shown(beside)}   keeps {kept:.2f}")


def _in_turns(work: Callable[[], int]) -> tuple[list[float], list[float]]:
    work()
    alone, beside = list[float](), list[float]()
    for _ in range(_TURNS):
        alone.append(_speed(work))
        with _busy_process():
            beside.append(_speed(work))
    return alone, beside


def _speed(work: Callable[[], int]) -> float:
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _TURN_S:
        done += work()
    return done / elapsed


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def _training(config: RunConfig) -> Callable[[], int]:
    threads = core_threads("cpu")
    train, model = config.train, config.model
    state = initial_state(train, model, "cpu", threads)
    batch, size = random_batch(config, train.batch_size), train.batch_size

    def step() -> int:
        choices = step_randomness(train, model, size, state.step)
        with torch_threads(threads.cores_each):
            train_step(state, batch, choices, train)
        return size

    return step


def _sampling(config: RunConfig) -> Callable[[], int]:
    inference, evaluation = inference_on("cpu", config.evaluate.precision), config.evaluate
    denoiser = inference.denoiser(Denoiser(config.model).eval())
    denoise = guided(denoiser, evaluation.guidance, evaluation.guidance_interval)
    batch, levels = random_batch(config, _SAMPLES), noise_levels(evaluation.steps)

    def sample() -> int:
        solver = evaluation.solver
        return len(inference.sample(solver, denoise, batch.latents, batch.text, levels))

    return sample


def _shown(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):.4g} ({min(speeds):.4g} to {max(speeds):.4g})"


if __name__ == "__main__":
    main()
