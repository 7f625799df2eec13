"""Which device, and which arithmetic pays on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# cuBLAS adds in a fixed order only with a workspace of its own, which it reads before its first
# call.
DETERMINISTIC_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class DeviceError(ValueError):
    """A device that this machine does not have."""

    exit_code = 2


def choose_device(device: str) -> str:
    """'auto' is the GPU where there is one. Raises DeviceError."""
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
    """Let equal steps give equal bits on a GPU too; an operation that cannot raises.
    DETERMINISTIC_ENVIRONMENT must have been set before the first of them."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it would choose by time


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """bf16 autocast where it is wanted, or where 'auto' finds hardware for it: elsewhere it is
    emulated, many times slower than fp32."""
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        yield
    else:
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            yield


def has_bf16(device: str) -> bool:
    """Whether bf16 arithmetic is in the hardware."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for each operation that is begun meanwhile, here and in threads that are
    started here."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
