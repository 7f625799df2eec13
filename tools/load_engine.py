"""Load tests of the engines: speed of encoding with one and two workers, and overhead per shard.

Run them on a machine that is otherwise idle:

python -m tools.load_engine encode local ray               # images/s by number of workers
python -m tools.load_engine plan local ray --shards 10000  # empty shards/s, and the driver's memory
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_catalog.storage.shard_reuse import reuse_nothing
from pipeline.compute.engine import pool_on
from pipeline.compute.shard_map import map_in_pool
from pipeline.config.encode import EncodeConfig
from pipeline.config.run import EngineConfig
from pipeline.encode.stage import encode
from tests.support.image_shards import make_images
from tests.support.mapping import do_nothing
from tests.support.tracker import RememberingTracker

_ROUNDS = 3


def print_encode(kinds: Sequence[str], shards: int, images_per_shard: int) -> None:
    """Print images/s with 1 and 2 workers, measured in turns, from the first results to the last,
    so that loading the models does not count."""
    speeds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="tld-engine-") as scratch:
        images = make_images(Path(scratch) / "images", [images_per_shard] * shards)
        for turn in range(_ROUNDS):
            for kind, workers in [(kind, workers) for kind in kinds for workers in (1, 2)]:
                config = EncodeConfig(
                    vae="shapes-vae", clip="shapes-clip", device="cpu", workers=workers
                )
                finished: list[float] = []
                out = Path(scratch) / f"{kind}{workers}.{turn}"
                out.mkdir()
                encode(
                    images,
                    config,
                    out,
                    RememberingTracker(),
                    partial(_map_timed, kind, finished),
                    reuse_nothing,
                )
                per_s = (
                    (shards - workers) * images_per_shard / (finished[-1] - finished[workers - 1])
                )
                speeds.setdefault((kind, workers), []).append(per_s)
    for (kind, workers), values in speeds.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(
            f"{kind:5} {workers} workers: {statistics.median(values):6.0f} images/s ({spread} in "
            f"{_ROUNDS} turns)"
        )


def _map_timed(
    kind: str,
    finished: list[float],
    make_worker: Callable[[], Callable[[Any], Any]],
    items: Iterable[Any],
    workers: int,
    deadline_s: float | None = None,
) -> Iterator[Any]:
    for result in map_in_pool(make_worker, items, workers, deadline_s, pool_on(_engine(kind))):
        finished.append(time.perf_counter())
        yield result


def print_plan(kinds: Sequence[str], shards: int, workers: int) -> None:
    """Print shards/s through the pool alone, and through a Prefect flow as in a run, with the
    driver's resident memory."""
    for kind in kinds:
        started = time.perf_counter()
        alone = map_in_pool(do_nothing, range(shards), workers, open_pool=pool_on(_engine(kind)))
        next(alone)
        begun = time.perf_counter()
        rest = sum(1 for _ in alone)
        took = time.perf_counter() - begun
        print(
            f"{kind:5} pool alone: first shard after {begun - started:.1f} s, then "
            f"{1e3 * took / rest:.2f} ms a shard"
        )
    with tempfile.TemporaryDirectory(prefix="tld-engine-") as home:
        from flows.orchestration.prefect_server import prefect_server

        with prefect_server(Path(home)):
            for kind in kinds:
                _drive(kind, shards, workers)


def _drive(kind: str, shards: int, workers: int) -> None:
    from prefect import flow

    from flows.orchestration.shard_tasks import run_as_task

    @flow(name="load-engine", persist_result=False)
    def drive() -> None:
        began = time.perf_counter()
        for done, _ in enumerate(
            map_in_pool(
                do_nothing, range(shards), workers, None, pool_on(_engine(kind)), run_as_task
            )
        ):
            if done == 0:
                began = time.perf_counter()  # the workers have started
            elif done % max(1, shards // 10) == 0 or done == shards - 1:
                per_s = done / (time.perf_counter() - began)
                print(
                    f"{kind:5} flow: {done:6} shards, {per_s:4.0f} shards/s, driver "
                    f"{_resident_mb():.0f} MB",
                    flush=True,
                )

    drive()


def _resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def _engine(kind: str) -> EngineConfig:
    return EngineConfig.model_validate({"kind": kind})


def main() -> None:
    """Print the results of one load test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["encode", "plan"])
    parser.add_argument("kinds", nargs="+", choices=["local", "ray"])
    parser.add_argument("--shards", type=int)
    parser.add_argument("--pictures", type=int, default=200, help="images per shard to encode")
    parser.add_argument("--workers", type=int, default=2, help="workers of the plan")
    options = parser.parse_args()
    if options.part == "encode":
        print_encode(options.kinds, options.shards or 12, options.pictures)
    else:
        print_plan(options.kinds, options.shards or 10_000, options.workers)


if __name__ == "__main__":
    main()
