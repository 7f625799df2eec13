"""A process that runs sections one after the other, and writes a line for each figure.

python -m tools.gpu_check.worker LINES PARENT DEVICE NAME=MODULE:FUNCTION …
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.compute.parent_watch import end_with_parent

_TRACEBACK_CHARACTERS = 3000


def main(lines: Path, parent: int, device: str, sections: list[str]) -> None:
    """Run sections. Ends early after one that raises, because its error may have broken the CUDA
    context; the next process goes on."""
    end_with_parent(parent, grace_s=0)
    warnings.filterwarnings("ignore")
    for section in sections:
        name, _, function = section.partition("=")
        write = partial(_append, lines, section=name)
        write(event="begin")
        started = time.perf_counter()
        problem = _run(function, device, write)
        write(event="end", seconds=round(time.perf_counter() - started, 1), problem=problem)
        if problem:
            os._exit(1)
        _tidy_up()
    os._exit(0)  # whatever threads of libraries still do


def _run(function: str, device: str, write: partial[None]) -> str:
    """Write the figures of a section. Returns its traceback if it raises."""
    module, _, attribute = function.partition(":")
    try:
        for name, value in getattr(importlib.import_module(module), attribute)(device):
            write(event="figure", name=name, value=value)
    except Exception:
        return traceback.format_exc()[-_TRACEBACK_CHARACTERS:]
    return ""


def _append(path: Path, **entry: Any) -> None:
    """In one write, so that a killed process leaves whole lines."""
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(entry, default=str) + "\n").encode())


def _tidy_up() -> None:
    """Free what a section left on the device, and make torch forget what it compiled."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is None:
        return
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
