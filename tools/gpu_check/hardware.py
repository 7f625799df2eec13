"""Sections on the machine itself: its card and software, and the speeds that bound all others."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import partial
from importlib import metadata

import torch

from pipeline.compute.devices import compiles, has_bf16
from pipeline.compute.hardware import c_compiler, hardware, usable_cores
from tools.gpu_check.machine import Figures, Machine, bf16_peak, matrix_tflop_per_s

_LIBRARIES = ("torch", "triton", "numpy", "transformers", "diffusers", "pyarrow", "pydantic")
_DRIVER = "driver_version,clocks.max.sm,clocks.sm,power.limit,temperature.gpu,pstate"


def environment(device: str) -> Figures:
    """Card, driver, libraries, compiler, and what the project makes of them."""
    machine = Machine(device)
    yield "python", platform.python_version()
    yield "libraries", {name: _version(name) for name in _LIBRARIES}
    yield "hardware", hardware()
    yield "cores", usable_cores()
    yield "c_compiler", c_compiler()
    yield "compiles", compiles(machine.config().train, machine.device)
    yield "bf16", has_bf16(machine.device)
    if not machine.is_gpu:
        yield "card", torch.cpu.get_capabilities().get("cpu_name", "a CPU")
        return
    properties = torch.cuda.get_device_properties(machine.device)
    yield "card", properties.name
    yield "memory_gib", round(properties.total_memory / 2**30, 1)
    yield "multiprocessors", properties.multi_processor_count
    yield "capability", list(torch.cuda.get_device_capability(machine.device))
    yield "cuda", torch.version.cuda
    yield "cudnn", torch.backends.cudnn.version()
    yield "driver", _driver()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> dict[str, str]:
    """What the driver says of itself and of the card's clocks."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={_DRIVER}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    values = done.stdout.partition("\n")[0].split(", ")
    return dict(zip(_DRIVER.split(","), values, strict=False))


def peaks(device: str) -> Figures:
    """Matrix products in each arithmetic, memory bandwidth, and copies from the host."""
    machine = Machine(device)
    yield "bf16_tflop_per_s", round(bf16_peak(machine), 3)
    edge = machine.size(8192, 128)
    yield "tf32_tflop_per_s", round(matrix_tflop_per_s(machine, torch.float32, edge), 3)
    torch.set_float32_matmul_precision("highest")
    yield "fp32_tflop_per_s", round(matrix_tflop_per_s(machine, torch.float32, edge // 2), 3)
    torch.set_float32_matmul_precision("high")
    source = torch.ones(machine.size(1 << 29, 1 << 18), device=machine.device)
    target = torch.empty_like(source)
    ms = machine.milliseconds(lambda: target.copy_(source))
    yield "memory_gb_per_s", round(2 * source.nbytes / ms / 1e6, 1)  # read and written
    yield "host_to_device_gb_per_s", _copies(machine)


def _copies(machine: Machine) -> dict[str, float | None]:
    """The rates of copies from ordinary and from pinned memory of the host."""
    target = torch.empty(machine.size(1 << 26, 1 << 18), device=machine.device)
    pageable = torch.ones(target.shape)
    sources = {"pageable": pageable}
    if machine.is_gpu:
        sources["pinned"] = pageable.pin_memory()
    rates: dict[str, float | None] = {"pinned": None}
    for name, source in sources.items():
        ms = machine.milliseconds(partial(target.copy_, source, non_blocking=True))
        rates[name] = round(target.nbytes / ms / 1e6, 2)
    return rates
