"""Benchmark of a run's own models on this machine, with the projected duration of the run.

It uses synthetic data in a temporary folder. Of the run itself it reads only the encoders and the
length of the URL table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data_catalog.input_rows import open_rows
from pipeline.bench.data_speed import measure_encoding, measure_loading
from pipeline.bench.measure import Measurement, Speed
from pipeline.bench.model_speed import measure_decoding, measure_denoising, measure_training
from pipeline.bench.parts import Part
from pipeline.compute.devices import choose_device, has_bf16
from pipeline.config.run import RunConfig


def bench(
    config: RunConfig, parts: Sequence[Part], pairs: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Measure these parts one after the other, the data loader on this many pairs. Returns figures
    for people and programs. Raises NoRoom if the pairs do not fit on the disk."""
    measures: dict[Part, Callable[[Path], Measurement]] = {
        "encode": lambda scratch: measure_encoding(config, scratch),
        "load": lambda scratch: measure_loading(config, scratch, pairs),
        "train": lambda _: measure_training(config, report),
        "denoise": lambda _: measure_denoising(config),
        "decode": lambda _: measure_decoding(config),
    }
    speeds: dict[str, Speed] = {}
    details: dict[str, Any] = {}
    for part in parts:
        report(f"measuring {part} …")
        with tempfile.TemporaryDirectory(prefix="tld-bench-") as scratch:
            measured = measures[part](Path(scratch))
        speeds, details = speeds | measured.speeds, details | measured.details
    per_s = {name: speed.median for name, speed in speeds.items()}
    if "denoise" in per_s and "decode" in per_s:
        per_s["sample"] = 1 / (1 / per_s["denoise"] + 1 / per_s["decode"])
        details["sample_images_per_s"] = round(per_s["sample"], 2)
    if "load" in per_s and "train" in per_s:
        details["load_over_train"] = round(per_s["load"] / per_s["train"], 1)
    return {
        "machine": _machine(choose_device(config.train.device)),
        "images_per_s": {name: speed.summary() for name, speed in speeds.items()},
        **details,
        "projected_hours": _projected_hours(config, per_s),
    }


def _projected_hours(config: RunConfig, per_s: dict[str, float]) -> dict[str, float]:
    """Hours that the whole run would take in each stage whose speed is known."""
    counts: dict[str, Callable[[], int]] = {
        "encode": lambda: open_rows(config.download.rows).rows_about(),
        "train": lambda: config.train.steps * config.train.batch_size,
        "sample": lambda: config.evaluate.prompts,
    }
    return {
        name: round(count() / per_s[name] / 3600, 3)
        for name, count in counts.items()
        if name in per_s
    }


def _machine(device: str) -> str:
    """The device and the software that were measured."""
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else torch.cpu.get_capabilities().get("cpu_name", "CPU")
    )
    arithmetic = "bf16" if has_bf16(device) else "fp32"
    return (
        f"{device}: {name}, {torch.get_num_threads()} threads, {arithmetic}, "
        f"torch {torch.__version__}"
    )
