"""Choice of the device, its precision, deterministic algorithms and the number of threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.compute.hardware import c_compiler
from pipeline.config.train import TrainConfig

_LEAST_FOR_TRITON = (7, 0)  # compute capability
# cuBLAS adds in a fixed order only with its own workspace. It reads this setting before its first
# call.
DETERMINISTIC_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class DeviceError(ValueError):
    """A device that this machine does not have."""

    exit_code = 2


class GpuFailure(RuntimeError):
    """A GPU has too little memory or has failed; the message says which setting to change."""

    exit_code = 1


def choose_device(device: str) -> str:
    """Check a device name; 'auto' is the GPU if there is one. Raises DeviceError."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return device
    if kind == "cuda" and torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count():
        return device
    raise DeviceError(
        f"no device {device!r} on this machine; it has cpu and {torch.cuda.device_count()} CUDA "
        "devices" + (". Apple's GPUs (mps) are not supported" if kind == "mps" else "")
    )


def use_device(device: str) -> str:
    """Choose the device on which this process computes, as `choose_device`, and prepare it.

    Matrix products of float32 on a GPU are in TF32, which keeps 10 bits of each factor and all of
    the sum: several times as fast, and what weights trained in bf16 need. Attention there is not
    cuDNN's, which prepares a plan for each new shape, where captions and batches vary.
    """
    chosen = choose_device(device)
    if chosen.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)
        if ":" in chosen:
            torch.cuda.set_device(chosen)  # for what allocates on the current device
    return chosen


def use_one_of(device: str, worker: int) -> str:
    """Like `use_device`, for one of several workers: without an index, each takes the next GPU."""
    chosen = choose_device(device)
    if chosen == "cuda":
        chosen = f"cuda:{worker % torch.cuda.device_count()}"
    return use_device(chosen)


def compiles(config: TrainConfig, device: str) -> bool:
    """Whether to compile: as set, or for 'auto' on a GPU for which Triton can. Not where each run
    must give the same bits, because the compiler chooses among kernels by their speed."""
    if isinstance(config.compile, bool):
        return config.compile
    return (
        device.startswith("cuda")
        and not config.deterministic
        and torch.cuda.get_device_capability(device) >= _LEAST_FOR_TRITON
        and importlib.util.find_spec("triton") is not None
        and c_compiler() is not None
    )


def idle_gpus(device: str, processes: int) -> str | None:
    """A warning if a training leaves GPUs of this machine idle."""
    present = torch.cuda.device_count()
    if not device.startswith("cuda") or processes >= present:
        return None
    return (
        f"training uses {processes} of the {present} GPUs of this machine; "
        f"train.launch.processes={present} uses all"
    )


@contextmanager
def advice_on_memory(advice: str) -> Iterator[None]:
    """Turn a GPU's lack of memory in the block into GpuFailure with this advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first_line = str(error).partition(". ")[0]
        raise GpuFailure(f"{first_line}.\n{advice}") from error


def wait_for(device: str) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def use_deterministic_algorithms() -> None:
    """Make equal steps give equal bits on a GPU too; operations that cannot do so raise an error.
    DETERMINISTIC_ENVIRONMENT must be set before the first operation."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by measuring time


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """bf16 autocast if requested, or if 'auto' finds hardware for it: without, it is emulated and
    many times slower than fp32."""
    if computes_in_bf16(device, precision):
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            yield
    else:
        yield


def computes_in_bf16(device: str, precision: str) -> bool:
    """Whether this precision is bf16 on a device."""
    return precision == "bf16" or (precision == "auto" and has_bf16(device))


def has_bf16(device: str) -> bool:
    """Whether the hardware supports bf16 arithmetic."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use this many threads for each operation that starts in the block, in this thread and in
    threads that it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
