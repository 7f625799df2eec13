"""Threads for the rows of a batch: order, modes, any number of rows, errors."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from torch import Tensor, nn

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads, core_threads


def test_results_keep_the_order_of_the_items_however_long_each_takes() -> None:
    def slow(item: int) -> int:
        time.sleep(random.random() / 50)
        return item * item

    assert CoreThreads(3).map(slow, range(20)) == [item * item for item in range(20)]


def test_all_threads_compute_at_the_same_time_with_their_share_of_the_cores() -> None:
    together = threading.Barrier(2, timeout=30)

    def share(_: int) -> int:
        together.wait()
        return torch.get_num_threads()

    assert CoreThreads(6).map(share, range(2)) == [3, 3]


def test_a_single_item_has_the_thread_of_the_caller_and_so_all_its_cores() -> None:
    assert CoreThreads(4).map(lambda _: threading.get_ident(), [0]) == [threading.get_ident()]
    assert ONE_THREAD.map(lambda _: threading.get_ident(), [0, 1]) == [threading.get_ident()] * 2


def test_threads_record_gradients_and_round_as_their_caller_does() -> None:
    def modes(_: int) -> tuple[bool, torch.dtype]:
        return torch.is_grad_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    threads = CoreThreads(2)
    assert threads.map(modes, range(2)) == [(True, torch.float32)] * 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert threads.map(modes, range(2)) == [(False, torch.bfloat16)] * 2
    assert threads.map(modes, range(2)) == [(True, torch.float32)] * 2


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
def test_any_number_of_rows_is_computed_once_and_in_order(rows: int) -> None:
    seen: list[int] = []

    def double(x: Tensor, nothing: Tensor | None, y: Tensor) -> Tensor:
        assert nothing is None
        seen.append(len(x))
        return 2 * x + y

    x, y = torch.randn(rows, 3), torch.randn(rows, 3)
    assert torch.equal(CoreThreads(3).by_rows(double)(x, None, y), 2 * x + y)
    assert sum(seen) == rows
    assert len(seen) == min(rows, 3)


def test_equal_calls_give_equal_bits_in_whatever_order_threads_finish() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(257, 131), torch.randn(37, 257)

    def delayed(rows: Tensor) -> Tensor:
        time.sleep(random.random() / 50)
        out: Tensor = layer(rows)
        return out

    first, *others = (CoreThreads(4).by_rows(delayed)(x) for _ in range(5))
    assert all(torch.equal(first, other) for other in others)


def test_too_few_rows_for_threads_are_computed_here_on_one_core() -> None:
    def where(x: Tensor) -> Tensor:
        here = (float(threading.get_ident()), float(torch.get_num_threads()))
        return torch.tensor(here, dtype=torch.float64).expand(len(x), 2)

    by_rows = CoreThreads(2).by_rows(where, least_rows=4)
    assert by_rows(torch.zeros(3)).unique(dim=0).tolist() == [[float(threading.get_ident()), 1.0]]
    assert threading.get_ident() not in by_rows(torch.zeros(4))[:, 0].tolist()


def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_stay_usable() -> None:
    threads = CoreThreads(2)

    def refuse(item: int) -> int:
        if item == 1:
            raise ValueError("item 1")
        return item

    with pytest.raises(ValueError, match="item 1"):
        threads.map(refuse, range(4))
    assert threads.map(refuse, [2, 3]) == [2, 3]


def test_only_a_cpu_has_several_threads_and_no_more_than_eight() -> None:
    assert core_threads("cuda") is ONE_THREAD
    assert core_threads("cpu").count == min(8, torch.get_num_threads())
    assert (CoreThreads(64).count, CoreThreads(64).cores_each) == (8, 8)
