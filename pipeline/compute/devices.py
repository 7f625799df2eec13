"""Choice of the device, its precision, deterministic algorithms and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# cuBLAS adds in a fixed order only with its own workspace. It reads this setting before its first
# call.
DETERMINISTIC_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class DeviceError(ValueError):
    """A device that this machine does not have."""

    exit_code = 2


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
        "devices"
    )


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
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        yield
    else:
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            yield


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
