from __future__ import annotations

import warnings

import pytest
import torch

from tools.gpu_check.machine import Machine, covered_share
from tools.gpu_check.stage import speeds_between


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([(0, 10)], 1.0),
        ([(0, 2), (8, 10)], 0.4),
        ([(0, 6), (1, 2), (4, 8), (9, 10)], 0.9),
    ],
)
def test_idle_time_lies_between_spans(spans: list[tuple[float, float]], share: float) -> None:
    assert covered_share(spans) == pytest.approx(share)


def test_a_cpu_has_no_figures_of_a_gpu() -> None:
    machine, calls = Machine("cpu"), list[int]()
    assert machine.synchronizations(lambda: calls.append(1)) is None
    assert machine.busy_share(lambda: calls.append(1), calls=3) is None
    assert machine.peak_gib() is None
    assert machine.milliseconds(lambda: calls.append(1)) > 0


def test_waits_for_a_gpu_are_counted_where_torch_warns_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes = list[str]()
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    machine = Machine("cpu")
    machine.is_gpu = True

    def wait() -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation (Triggered …)", stacklevel=1)

    places = machine.synchronizations(wait)
    assert places is not None
    assert [place.partition(":")[0] for place in places] == ["test_machine.py"] * 2
    assert modes == ["warn", "default"]


def test_speeds_of_intervals_follow_from_speeds_since_the_start() -> None:
    # 10 steps of 4 in 10 s, then 10 in 5 s
    ((step, speed),) = speeds_between([(10, 4.0), (20, 80 / 15)], batch_size=4)
    assert step == 20
    assert speed == pytest.approx(8.0)
