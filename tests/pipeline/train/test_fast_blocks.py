"""Which way the blocks of a training compute, with pretended GPUs and measurements."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from pipeline.compute.devices import GpuFailure
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.train import fast_blocks
from pipeline.train.events import EventLog
from pipeline.train.fast_blocks import MeasuredWays, speed_up_blocks
from tests.support.interpreter import needs_triton, run_interpreted
from tests.support.training import MODEL, SETTINGS
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.layers import FeedForward

pytestmark = [
    needs_triton,
    # What torch says of itself when its compiler is imported.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

JOINT = MODEL.model_copy(update={"blocks": "joint"})
FASTER = MeasuredWays(layers_ms=2.0, fused_ms=1.0, difference=0.002)
SLOWER = MeasuredWays(layers_ms=1.0, fused_ms=2.0, difference=0.002)
WRONG = MeasuredWays(layers_ms=2.0, fused_ms=1.0, difference=0.3)
ADVICE = ". train.compile=false does without the comparison"
INVALID = MeasuredWays(layers_ms=2.0, fused_ms=1.0, difference=float("nan"))


def is_fused(denoiser: Denoiser) -> bool:
    layers = [layer for layer in denoiser.modules() if isinstance(layer, FeedForward)]
    (fused,) = {layer.fused is not None for layer in layers}
    return fused


def is_compiled(denoiser: Denoiser) -> bool:
    return all(block._compiled_call_impl is not None for block in denoiser.blocks)


class Pretended:
    """A comparison with this outcome, which remembers what it was asked."""

    def __init__(self, outcome: MeasuredWays | Exception) -> None:
        self.outcome = outcome
        self.asked = list[tuple[str, int]]()

    def __call__(
        self, _: TrainConfig, model: DenoiserConfig, device: str, count: int
    ) -> MeasuredWays:
        assert model in (MODEL, JOINT)
        self.asked.append((device, count))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU for which training compiles, unless the settings say otherwise."""
    monkeypatch.setattr(
        fast_blocks,
        "compiles",
        lambda config, device: config.compile is not False and device != "cpu",
    )
    monkeypatch.setattr(fast_blocks, "wait_for", lambda _: None)


@pytest.mark.usefixtures("gpu")
def test_a_kernel_that_breaks_the_gpu_ends_training_with_the_way_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(_: str) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(fast_blocks, "wait_for", lost)
    with pytest.raises(GpuFailure, match=r"illegal access\.\n.*train\.compile=false"):
        speed_up_blocks(
            Denoiser(MODEL),
            TrainConfig(**SETTINGS),
            "cuda",
            compare=Pretended(RuntimeError("illegal access")),
        )


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("outcome", "fused", "kind", "text"),
    [
        (
            FASTER,
            True,
            "phase",
            "by the fused kernel: a layer takes 1.00 ms fused, 2.00 ms otherwise",
        ),
        (
            SLOWER,
            False,
            "phase",
            "by torch's layers: a layer takes 2.00 ms fused, 1.00 ms otherwise",
        ),
        (WRONG, False, "warning", f"its results differ by 30%{ADVICE}"),
        (INVALID, False, "warning", f"its results differ by nan%{ADVICE}"),
        (RuntimeError("no Python.h\nat 1"), False, "warning", f"failed: no Python.h{ADVICE}"),
        (RuntimeError(" \n"), False, "warning", f"it failed: RuntimeError(' \\n'){ADVICE}"),
    ],
)
def test_the_faster_way_is_chosen_if_it_is_right(
    outcome: MeasuredWays | Exception, fused: bool, kind: str, text: str, tmp_path: Path
) -> None:
    denoiser, compare = Denoiser(MODEL), Pretended(outcome)
    weights = list(denoiser.state_dict())
    config = TrainConfig(**{**SETTINGS, "accumulate": 2})
    speed_up_blocks(denoiser, config, "cuda:0", ALONE, EventLog(tmp_path, 20, 8), compare)
    assert compare.asked == [("cuda:0", 4)]
    assert is_fused(denoiser) is fused
    assert is_compiled(denoiser)
    assert list(denoiser.state_dict()) == weights
    (event,) = events(tmp_path)
    assert event["kind"] == kind
    assert event["note" if kind == "phase" else "text"].endswith(text)


@pytest.mark.usefixtures("gpu")
def test_joint_blocks_are_fused_and_compiled_too() -> None:
    denoiser = Denoiser(JOINT)
    speed_up_blocks(denoiser, TrainConfig(**SETTINGS), "cuda", compare=Pretended(FASTER))
    assert is_fused(denoiser)
    assert is_compiled(denoiser)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("device", "setting", "compiled"),
    [
        ("cpu", {}, False),
        ("cuda", {"compile": False}, False),
        ("cuda", {"deterministic": True, "compile": True}, True),
    ],
)
def test_nothing_is_measured_where_nothing_may_be_chosen(
    device: str, setting: dict[str, Any], compiled: bool
) -> None:
    denoiser, compare = Denoiser(MODEL), Pretended(FASTER)
    speed_up_blocks(denoiser, TrainConfig(**{**SETTINGS, **setting}), device, compare=compare)
    assert compare.asked == []
    assert not is_fused(denoiser)
    assert is_compiled(denoiser) is compiled


@pytest.mark.parametrize(("second_can", "fused"), [(True, True), (False, False)])
def test_all_ranks_compute_as_the_first_has_chosen(
    second_can: bool, fused: bool, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ranks = [
        context.Process(target=_choose, args=(rank, tmp_path / "meeting", second_can, queue))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()  # one that waits for the other
    assert [process.exitcode for process in ranks] == [0, 0]
    # Two ranks of four images each; only the first measures, and only if both may be fused.
    asked = [("cuda", 4)] if fused else []
    assert sorted(queue.get() for _ in ranks) == [(0, fused, asked), (1, fused, [])]


def _choose(rank: int, meeting: Path, second_can: bool, queue: SimpleQueue[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_blocks, "compiles", lambda *_: rank == 0 or second_can)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        denoiser, compare = Denoiser(MODEL), Pretended(FASTER if rank == 0 else SLOWER)
        ranks = Ranks(rank, 2, dist.group.WORLD)
        speed_up_blocks(denoiser, TrainConfig(**SETTINGS), "cuda", ranks, compare=compare)
        queue.put((rank, is_fused(denoiser), compare.asked))
        dist.destroy_process_group()


@pytest.mark.slow
def test_the_comparison_notices_a_kernel_that_is_wrong(tmp_path: Path) -> None:
    run_interpreted("tests/pipeline/train/interpreted_fast_blocks.py", tmp_path)
