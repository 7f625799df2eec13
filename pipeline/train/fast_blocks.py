"""Compilation of the transformer blocks, and the choice of how a GPU computes their depthwise
convolutions: by the fused kernel where it is faster and its results agree with torch's layers."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.compute.devices import (
    GpuFailure,
    autocast,
    compiles,
    computes_in_bf16,
    wait_for,
)
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.train.events import EventLog
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.layers import FeedForward, FusedDepthwise

_ROUNDS = 5
_CALLS = 5  # of a round, queued one after the other as in a step
# Of the norm of an output or a gradient. bf16 rounds each number by up to 0.004 of it, TF32 by
# 0.0005.
_LARGEST_DIFFERENCE_IN_BF16, _LARGEST_DIFFERENCE = 0.02, 0.003


@dataclass(frozen=True, slots=True)
class MeasuredWays:
    """A feed-forward layer, forward and backward, with torch's layers and with the fused kernel."""

    layers_ms: float
    fused_ms: float
    difference: float  # the largest of output and gradients, relative to their norm

    def describe(self) -> str:
        """Which way is faster, for the log."""
        faster = "the fused kernel" if self.fused_ms < self.layers_ms else "torch's layers"
        return (
            f"depthwise convolutions by {faster}: a layer takes {self.fused_ms:.2f} ms fused, "
            f"{self.layers_ms:.2f} ms otherwise"
        )


Compare = Callable[[TrainConfig, DenoiserConfig, str, int], MeasuredWays]


def compare_ways(
    config: TrainConfig, model: DenoiserConfig, device: str, count: int
) -> MeasuredWays:
    """Measure both ways in turns, as training runs them, on random tokens of this many images."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (count, model.tokens, model.width)
    tokens, gradient = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    tokens.requires_grad_()
    with torch.random.fork_rng(devices=[]):
        layers = FeedForward(model.width, model.mlp_multiplier).to(device)
    fused = copy.deepcopy(layers)
    fused.fused = fused_depthwise()

    def results(layer: FeedForward) -> list[Tensor]:
        with autocast(device, config.precision):
            out = layer(tokens)
        leaves = [tokens, *layer.parameters()]
        return [out, *torch.autograd.grad(out, leaves, gradient.to(out.dtype))]

    if compiles(config, device):
        layers.compile()
        fused.compile()
    difference = largest_error(results(fused), results(layers))
    ways = (partial(results, layers), partial(results, fused))
    times = [[_milliseconds(way, device) for way in ways] for _ in range(_ROUNDS)]
    layers_ms, fused_ms = map(statistics.median, zip(*times, strict=True))
    if compiles(config, device):
        torch.compiler.reset()  # the blocks are compiled as if nothing had been before
    return MeasuredWays(layers_ms, fused_ms, difference)


def speed_up_blocks(
    denoiser: Denoiser,
    config: TrainConfig,
    device: str,
    ranks: Ranks = ALONE,
    log: EventLog | None = None,
    compare: Compare = compare_ways,
) -> None:
    """Compile the blocks where `compiles` says so, on a GPU with the faster depthwise convolution.
    Every rank must call this; all compute as the leading one has chosen. Where each run must give
    the same bits nothing is chosen by its speed, and torch's layers stay."""
    compiled = compiles(config, device)
    may_fuse = compiled and device.startswith("cuda") and not config.deterministic
    if not ranks.any(not may_fuse):
        images = config.batch_size // ranks.count // config.accumulate
        compare_here = partial(compare, config, denoiser.config, device, images)
        limit = largest_difference(config, device)
        if ranks.as_leader(int(ranks.leads and _is_fused_better(compare_here, limit, device, log))):
            denoiser.fuse_depthwise(fused_depthwise())
        torch.cuda.empty_cache()
    if compiled:
        denoiser.compile_blocks()


def largest_difference(config: TrainConfig, device: str) -> float:
    """How far the results of both ways may lie apart in the arithmetic of a training."""
    if computes_in_bf16(device, config.precision):
        return _LARGEST_DIFFERENCE_IN_BF16
    return _LARGEST_DIFFERENCE


def _is_fused_better(
    compare: Callable[[], MeasuredWays], limit: float, device: str, log: EventLog | None
) -> bool:
    """Whether the fused kernel is faster and right. Raises GpuFailure if it breaks the GPU."""
    try:
        measured = compare()
    except Exception as error:  # compilers raise nearly any, of a missing header too
        problem = f"it failed: {(str(error).strip() or repr(error)).splitlines()[0]}"
        _check_gpu(device, problem)
    else:
        if measured.difference <= limit:
            if log:
                log.note(measured.describe())
            return measured.fused_ms < measured.layers_ms
        problem = f"its results differ by {100 * measured.difference:.2g}%"  # nan, too
    if log:
        log.warn(
            f"training goes on without the fused depthwise kernel: {problem}. train.compile=false "
            "does without the comparison"
        )
    return False


def _check_gpu(device: str, problem: str) -> None:
    """Raise GpuFailure if a GPU computes nothing any more, as after an access to memory that is not
    its own."""
    try:
        wait_for(device)
    except RuntimeError as error:
        raise GpuFailure(
            f"the fused depthwise kernel has broken the GPU's process: {problem}.\n"
            "Train without it: train.compile=false"
        ) from error


def fused_depthwise() -> FusedDepthwise:
    """The fused kernel. Raises ImportError without triton."""
    from tld_model.fused_depthwise import depthwise_gelu  # triton is not on every machine

    return depthwise_gelu


def largest_error(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest norm of a difference, relative to that of the expected tensor; nan if one is."""
    ratios = [
        (result.float() - other.float()).norm() / other.float().norm()
        for result, other in zip(results, expected, strict=True)
    ]
    return float(torch.stack(ratios).detach().max())


def _milliseconds(work: Callable[[], object], device: str) -> float:
    """The time of a call, of several that are queued together."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(_CALLS):
        work()
    wait_for(device)
    return (time.perf_counter() - started) * 1e3 / _CALLS
