import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from pipeline.compute import worker_pool as pool
from pipeline.compute.shard_map import map_in_pool
from pipeline.compute.worker_pool import ShardFailed, ShardPool, WorkerDied


def square() -> Callable[[int], tuple[int, int]]:
    return _square


def _square(x: int) -> tuple[int, int]:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x * x, os.getpid()


def dies_once(mark: Path) -> Callable[[int], int]:
    return partial(_dies_once, mark)


def _dies_once(mark: Path, x: int) -> int:
    if x == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def always_dies() -> Callable[[int], int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def test_every_item_is_worked_on_in_other_processes() -> None:
    results = list(map_in_pool(square, range(6), workers=2))
    assert sorted(value for value, _ in results) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {pid for _, pid in results}


def test_an_error_travels_back_with_its_traceback() -> None:
    with pytest.raises(ValueError, match="-1 is negative") as raised:
        list(map_in_pool(square, [-1], workers=1))
    assert "in _square" in raised.value.__notes__[0]


def test_a_worker_that_dies_costs_a_second_try(tmp_path: Path) -> None:
    assert sorted(map_in_pool(partial(dies_once, tmp_path / "mark"), range(5), workers=2)) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert (tmp_path / "mark").exists()


def test_a_worker_that_always_dies_is_reported_not_waited_for() -> None:
    message = (
        r"shard 1 could not .* exit code -9 \(killed: most likely out of memory\)"
        r"(.|\n)*download\.workers(.|\n)*kept"
    )
    with pytest.raises(ShardFailed, match=message):
        list(map_in_pool(always_dies, [1], workers=1))


def hangs_once(mark: Path) -> Callable[[int], int]:
    return partial(_hangs_once, mark)


def _hangs_once(mark: Path, x: int) -> int:
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    return x


@pytest.mark.slow
def test_a_shard_that_outlasts_its_deadline_is_redone_by_another_worker(tmp_path: Path) -> None:
    assert list(
        map_in_pool(partial(hangs_once, tmp_path / "mark"), [7], workers=1, deadline_s=20)
    ) == [7]


@pytest.mark.slow
def test_a_worker_that_stands_still_is_told_from_one_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CHECK_EVERY_S", 0.5)
    monkeypatch.setattr(pool, "_STANDSTILL_S", 4.0)
    with ShardPool[int, int](partial(hangs_once, tmp_path / "mark"), 1) as hanging:
        with pytest.raises(
            WorkerDied, match="it did nothing for 4 s; most likely it could not allocate memory"
        ):
            hanging.run(7)
        assert hanging.run(7) == 7
    with ShardPool[float, float](takes_long, 1) as working:
        assert working.run(10.0) == 10.0


def takes_long() -> Callable[[float], float]:
    return _takes_long


def _takes_long(processor_s: float) -> float:
    deadline = time.process_time() + processor_s
    while time.process_time() < deadline:
        sum(range(10_000))
    return processor_s


def exits_as_if_out_of_memory() -> Callable[[int], int]:
    return lambda _: os._exit(137)


@pytest.mark.slow
def test_an_exit_as_if_out_of_memory_is_reported_with_its_code() -> None:
    with pytest.raises(ShardFailed, match="exit code 137"):
        list(map_in_pool(exits_as_if_out_of_memory, [1], workers=1))


def test_shards_are_asked_for_only_as_others_finish() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            asked.append(number)
            yield number

    for done, _ in enumerate(map_in_pool(square, items(), workers=2)):
        assert len(asked) <= done + 2 * 2 + 1
    assert len(asked) == 50


def test_closing_ends_the_processes() -> None:
    with ShardPool(square, 1) as pool:
        _, pid = pool.run(2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_cannot_be_started_is_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a container allows no more processes."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    message = (
        "worker process could not be started: Resource temporarily unavailable.*download.workers"
    )
    with pytest.raises(ShardFailed, match=message) as failed:
        list(map_in_pool(square, [1], workers=1))
    assert failed.value.exit_code == 1
