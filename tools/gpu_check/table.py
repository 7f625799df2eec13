"""The table of BENCHMARKS.md: what is measured, what was estimated, and what it should reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.gpu_check.report import Report

OPEN = "open: no GPU was at hand"
HEADINGS = ("what", "estimate for an H100", "goal", "figure")

Read = Callable[[Report], "float | None"]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, with its estimate for an H100 at batch 256."""

    what: str
    estimate: str
    read: Read
    unit: str = ""
    least: float | None = None  # a goal
    most: float | None = None  # likewise

    def cells(self, report: Report | None) -> tuple[str, str, str, str]:
        """In the order of HEADINGS."""
        return self.what, self.estimate, self._goal(), self._figure(report)

    def _goal(self) -> str:
        if self.unit == "yes":
            return "yes"
        if self.least is not None:
            return f"≥ {self._shown(self.least)}"
        return f"≤ {self._shown(self.most)}" if self.most is not None else ""

    def _figure(self, report: Report | None) -> str:
        value = self.read(report) if report else None
        if value is None:
            return OPEN if report is None else "not measured"
        missed = (self.least is not None and value < self.least) or (
            self.most is not None and value > self.most
        )
        return self._shown(value) + (" (missed)" if missed else "")

    def _shown(self, value: float) -> str:
        if self.unit == "yes":
            return "yes" if value else "no"
        if self.unit == "%":
            return f"{100 * value:.3g}%"
        return f"{value:,.0f}{self.unit}" if value >= 1000 else f"{value:.4g}{self.unit}"


def _at(section: str, *names: str) -> Read:
    """Reads a figure; yes is 1, and no is 0. A text says why there is none."""

    def read(report: Report) -> float | None:
        value: Any = report.figure(section, *names)
        return None if value is None or isinstance(value, str) else float(value)

    return read


def _sum(*parts: Read) -> Read:
    def read(report: Report) -> float | None:
        values = [part(report) for part in parts]
        return None if None in values else sum(value for value in values if value is not None)

    return read


def _ratio(part: Read, whole: Read) -> Read:
    def read(report: Report) -> float | None:
        dividend, divisor = part(report), whole(report)
        return dividend / divisor if dividend is not None and divisor else None

    return read


_SAMPLING = _sum(_at("sample", "bf16", "seconds"), _at("sample", "decode_s"))
_EAGER = _at("train", "eager", "ms")
_COMPILED = _at("train", "compiled", "ms")
ROWS = (
    Row("bf16 matrix peak", "", _at("peaks", "bf16_tflop_per_s"), " TFLOP/s"),
    Row("memory bandwidth", "", _at("peaks", "memory_gb_per_s"), " GB/s"),
    Row(
        "copies from pinned memory",
        "",
        _at("peaks", "host_to_device_gb_per_s", "pinned"),
        " GB/s",
    ),
    Row("a training step, eager", "133–220 ms", _EAGER, " ms"),
    Row("a training step, compiled", "111–214 ms", _COMPILED, " ms"),
    Row("images/s, compiled", "", _at("train", "compiled", "images_per_s")),
    Row(
        "share of the bf16 matrix peak, compiled",
        "",
        _at("train", "compiled", "share_of_bf16_peak"),
        "%",
        least=0.45,
    ),
    Row("memory, compiled", "", _at("train", "compiled", "memory_gib"), " GiB"),
    Row("memory, eager", "≤ 35 GiB", _at("train", "eager", "memory_gib"), " GiB"),
    Row(
        "the same with train.checkpoint_blocks",
        "≤ 6.9 GiB",
        _at("train", "eager_with_checkpoint_blocks", "memory_gib"),
        " GiB",
    ),
    Row(
        "its step, over the eager one",
        "1.3",
        _ratio(_at("train", "eager_with_checkpoint_blocks", "ms"), _EAGER),
    ),
    Row(
        "the host's share of a compiled step",
        "",
        _ratio(_at("train", "compiled", "host_ms"), _COMPILED),
        "%",
    ),
    Row(
        "waits for the GPU in a step",
        "0",
        _at("train", "compiled_synchronizations", "count"),
        most=0,
    ),
    Row(
        "depthwise convolution and GELU, of an eager step",
        "10–97 ms",
        _at("depthwise", "model_bfloat16", "step_ms"),
        " ms",
    ),
    Row(
        "the same as a share of the step",
        "",
        _ratio(_at("depthwise", "model_bfloat16", "step_ms"), _EAGER),
        "%",
    ),
    Row(
        "the fused kernel for them, of an eager step",
        "≥ 12 ms",
        _at("depthwise", "fused_bfloat16", "step_ms"),
        " ms",
    ),
    Row(
        "the fused kernel's error over that of torch's layers",
        "",
        _ratio(
            _at("depthwise", "agreement_bfloat16", "fused"),
            _at("depthwise", "agreement_bfloat16", "layers"),
        ),
        most=1.2,
    ),
    Row(
        "the fused kernel repeats its bits",
        "",
        _at("depthwise", "agreement_bfloat16", "repeats_exactly"),
        "yes",
        least=1,
    ),
    Row(
        "a training step, compiled, with the fused kernel",
        "",
        _at("depthwise", "compiled_fused_step_ms"),
        " ms",
    ),
    Row("36 images × 15 guided steps, fp32", "", _at("sample", "fp32", "seconds"), " s"),
    Row("the same in TF32", "", _at("sample", "tf32", "seconds"), " s"),
    Row("the same in bf16", "0.2–0.35 s", _at("sample", "bf16", "seconds"), " s"),
    Row("their decoding", "0.11 s", _at("sample", "decode_s"), " s"),
    Row("bf16 with decoding", "0.31–0.46 s", _SAMPLING, " s", most=0.3),
    Row("waits for the GPU in sampling", "0", _at("sample", "bf16", "synchronizations"), most=0),
    Row("encode, images/s", "400–550", _at("encode", "encode_images_per_s")),
    Row(
        "encode over bare encoders",
        "",
        _at("encode", "over_bare_encoders"),
        least=0.95,
    ),
    Row("an update by AdamW", "", _at("optimizers", "adamw_fused", "ms"), " ms"),
    Row("an update by Muon, in stacks", "", _at("optimizers", "muon_in_stacks", "ms"), " ms"),
    Row("an update by torch's Muon", "", _at("optimizers", "muon_of_torch", "ms"), " ms"),
    Row("a checkpoint, until it is written", "", _at("checkpoint", "write_s"), " s"),
    Row("its copy, for which training waits", "", _at("checkpoint", "copy_s"), " s"),
    Row(
        "two processes repeat a deterministic training exactly",
        "",
        _at("exactness", "repeats_exactly"),
        "yes",
        least=1,
    ),
    Row(
        "a resumed one ends with the same bits",
        "",
        _at("exactness", "resumes_exactly"),
        "yes",
        least=1,
    ),
    Row(
        "the stage's best speed over bare steps",
        "",
        _at("stage", "best_over_bare_steps"),
    ),
    Row("the GPU computes in the training loop", "", _at("stage", "busy_share"), "%"),
    Row("a step under DDP, one process", "", _at("distributed", "ddp", "ms"), " ms"),
    Row("a step under FSDP, one process", "", _at("distributed", "fsdp", "ms"), " ms"),
)


def markdown(report: Report | None) -> Iterator[str]:
    """The lines of the table; without a report nothing is measured yet."""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "| --- " * len(HEADINGS) + "|"
    for row in ROWS:
        yield "| " + " | ".join(row.cells(report)) + " |"


def caption(report: Report) -> str:
    """What was measured."""
    libraries = report.figure("environment", "libraries") or {}
    return f"{report.figure('environment', 'card')}, torch {libraries.get('torch')}"
