"""Workers of a pool have numbers, so that each takes another GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.compute.devices import use_one_of
from pipeline.compute.worker_numbers import own_worker_number
from pipeline.compute.worker_pool import ShardPool, WorkerDied


def make_meeting() -> Callable[[Path], int]:
    def meet(folder: Path) -> int:
        """The number of this worker, once two are here at the same time; ends in a folder "end"."""
        if folder.name == "end":
            os._exit(1)
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        return own_worker_number()

    return meet


def test_workers_are_numbered_and_one_that_is_replaced_hands_on_its_number(tmp_path: Path) -> None:
    assert own_worker_number() == 0
    with ShardPool(make_meeting, 2) as pool, ThreadPoolExecutor(2) as callers:
        for turn in range(3):
            folder = tmp_path / str(turn)
            folder.mkdir()
            assert sorted(callers.map(pool.run, [folder, folder])) == [0, 1]
            with pytest.raises(WorkerDied):
                pool.run(tmp_path / "end")


def test_workers_take_the_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    used: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    precision = torch.get_float32_matmul_precision()
    try:
        chosen = [use_one_of("auto", number) for number in range(5)]
        assert torch.get_float32_matmul_precision() == "high"
        assert [use_one_of("cuda:2", 0), use_one_of("cpu", 4)] == ["cuda:2", "cpu"]
    finally:
        torch.set_float32_matmul_precision(precision)
    assert chosen == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert used == [*chosen, "cuda:2"], "what allocates on the current device takes this one"
