"""Diagnosis of an installation and its machine: what a bug report needs, and what is broken."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from pipeline.compute.hardware import c_compiler, cxx_compiler, gpu_names, hardware
from pipeline.config.distribution import requirements, tld_version

_SHOWN_PACKAGES = (
    *("torch", "diffusers", "transformers", "img2dataset", "numpy", "pyarrow", "pillow"),
    *("prefect", "mlflow", "fastapi"),
    *("datasets", "ray", "s3fs", "tensorboard", "torch-fidelity"),  # of extras
)
_PREFIXES = ("TLD_", "PREFECT_", "MLFLOW_", "HF_", "CUDA_", "OMP_", "PYTHON", "RAY_", "NVIDIA_")
_LEAST_DISK_GB = 1.0
_LEAST_MEMORY_GB = 2.0


def installation_facts(folder: Path) -> dict[str, str]:
    """What is installed here and on what machine; the free disk is that of a folder. Of environment
    variables it has the names alone, because values may be secret."""
    return {
        "tld": f"{tld_version()} in {Path(__file__).parents[2]}",
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        "hardware": hardware(),
        "memory available": f"{_memory_gb():.1f} GB",
        "disk free": f"{_disk_gb(folder):.1f} GB at {folder.resolve()}",
        "compilers": f"C: {c_compiler() or 'none'}, C++: {cxx_compiler() or 'none'}",
        "variables": ", ".join(sorted(name for name in _variables() if name.startswith(_PREFIXES))),
        **{name: _version_of(name) or "not installed" for name in _SHOWN_PACKAGES},
    }


def package_problems() -> Iterator[str]:
    """Packages that tld requires and that are missing or of another version, each with the command
    that mends it."""
    for requirement in map(Requirement, requirements()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version_of(requirement.name)
        declared = f"{requirement.name}{requirement.specifier}"
        if installed is None:
            yield f"{requirement.name} is not installed: pip install '{declared}'"
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield (
                f"{requirement.name} is {installed}, and tld requires {declared}: "
                f"pip install '{declared}'"
            )
    if _version_of("dataclasses"):
        yield (
            "the backport dataclasses, for which img2dataset asks, hides Python's own module from "
            "some processes: pip uninstall dataclasses"
        )


def machine_problems(folder: Path) -> Iterator[str]:
    """What this machine lacks for the smallest run."""
    if (free := _disk_gb(folder)) < _LEAST_DISK_GB:
        yield (
            f"{free:.1f} GB are free at {folder.resolve()}: remove files, or set root to another "
            "disk"
        )
    if (available := _memory_gb()) < _LEAST_MEMORY_GB:
        yield f"{available:.1f} GB of memory are available: end other programs"


def devices() -> tuple[list[str], list[str]]:
    """The devices that torch can use, and what is wrong with them."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [], [f"torch cannot be imported ({error}): install it again"]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    missing = len(gpu_names()) - len(gpus)
    if missing <= 0 or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return ["cpu", *gpus], []
    remedy = (
        "its driver is too old for CUDA {0}, or a GPU has failed: nvidia-smi says which"
        if torch.version.cuda
        else "this is torch's build for CPUs: install torch with CUDA"
    ).format(torch.version.cuda)
    return ["cpu", *gpus], [
        f"torch {torch.__version__} sees {len(gpus)} of {missing + len(gpus)} GPUs: {remedy}"
    ]


def _variables() -> Iterable[str]:
    """Names of the variables with which this process began: tld sets more on the way, which are
    nobody's choice."""
    variables: dict[str, str] = psutil.Process().environ()
    return variables


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gb() -> float:
    return float(psutil.virtual_memory().available / 1e9)


def _disk_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9
