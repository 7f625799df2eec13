"""Workers of a pool have numbers, so that each takes another GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.compute.devices import use_one_of
from pipeline.compute.worker_numbers import own_worker_number
from pipeline.compute.worker_pool import ShardPool, WorkerDied


def make_numbered() -> Callable[[str], int]:
    def number_or_die(item: str) -> int:
        if item == "die":
            os._exit(1)
        return own_worker_number()

    return number_or_die


def test_workers_are_numbered_and_one_that_is_replaced_hands_on_its_number() -> None:
    assert own_worker_number() == 0
    with ShardPool(make_numbered, 2) as pool, ThreadPoolExecutor(2) as callers:
        numbers = {number for _ in range(3) for number in callers.map(pool.run, ["a", "b"])}
        assert numbers <= {0, 1}
        for _ in range(3):
            with pytest.raises(WorkerDied):
                pool.run("die")
        assert {pool.run("again") for _ in range(4)} <= {0, 1}
        assert sorted({worker.number for worker in pool._alive}) == sorted(
            worker.number for worker in pool._alive
        ), "no two that live have one number"


def test_workers_take_the_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    used: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    precision = torch.get_float32_matmul_precision()
    try:
        chosen = [use_one_of("auto", number) for number in range(5)]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert chosen == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert used == chosen, "what allocates on the current device takes this one"
    assert [use_one_of("cuda:2", 0), use_one_of("cpu", 4)] == ["cuda:2", "cpu"]
    torch.set_float32_matmul_precision(precision)
