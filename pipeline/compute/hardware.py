"""A one-line description of this machine's hardware, for reports. Imports no torch."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
from pathlib import Path

_GPUS = Path("/proc/driver/nvidia/gpus")


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def c_compiler() -> str | None:
    """The C compiler with which torch compiles for a GPU, or None."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    return next(filter(shutil.which, names), None)


def cxx_compiler() -> str | None:
    """The C++ compiler with which torch compiles for a CPU, or None."""
    return next(filter(shutil.which, [os.environ.get("CXX") or "g++"]), None)


def gpu_names() -> list[str]:
    """The GPUs that NVIDIA's driver knows, whatever torch can use."""
    return [_value_of("Model", path) or "GPU" for path in sorted(_GPUS.glob("*/information"))]


@functools.cache
def hardware() -> str:
    """Processor, cores that this process may use, memory, GPUs: 'Intel(R) Xeon(R) Processor, 2
    cores, 8 GB'."""
    cores = usable_cores()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    processor = _value_of("model name", Path("/proc/cpuinfo")) or platform.machine()
    gpus = gpu_names()
    counted = [f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus)]
    return ", ".join(
        [processor, f"{cores} cores" if cores > 1 else "1 core", f"{memory:.0f} GB", *counted]
    )


def _value_of(key: str, path: Path) -> str:
    """The value after the first `key:` in a file, or ''."""
    match = (
        re.search(rf"^{key}\s*:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.exists()
        else None
    )
    return match[1].strip() if match else ""
