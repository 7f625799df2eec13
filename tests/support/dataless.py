"""torch's meta device, whose tensors have shapes but no data, in the place of a GPU.

A read of a tensor there raises an error, and so does an operation that mixes it with the CPU, where
a GPU would make the host wait or fail. Copies to the device that block are collected.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.train import optimizers
from tests.support.command import REPOSITORY

DEVICE = "meta"
_CREATIONS = (torch.tensor, torch.as_tensor, torch.asarray)
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class BlockingCopies(TorchDispatchMode):
    """Collects where the host copies to the device and waits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _COPIES:
            copied = args[1] if func is torch.ops.aten.copy_.default else args[0]
            blocks = not ((kwargs or {}).get("non_blocking") or True in args[2:])
            if blocks and _crosses(copied, result):
                self.places.append(_caller())
        return result


class BlockingCreations(TorchFunctionMode):
    """Collects where a tensor is created on the device from values of the host."""

    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _CREATIONS and str((kwargs or {}).get("device")) == DEVICE:
            self.places.append(_caller())
        return func(*args, **(kwargs or {}))


def _crosses(copied: Tensor, result: Tensor) -> bool:
    return copied.device.type == "cpu" and result.device.type == DEVICE


def _caller() -> str:
    """The innermost line of the project's own code."""
    frames = [
        frame
        for frame in traceback.extract_stack()
        if frame.filename.startswith(str(REPOSITORY)) and "site-packages" not in frame.filename
    ]
    inner = [frame for frame in frames if "/tests/" not in frame.filename] or frames
    return f"{inner[-1].filename.removeprefix(str(REPOSITORY))}:{inner[-1].lineno}"


@contextlib.contextmanager
def watched_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingCopies]:
    """Watch the copies in the block. Two parts of torch are replaced that know no meta device: the
    fused AdamW, by the plain one, and autocast, by nothing."""
    plain = torch.optim.AdamW
    monkeypatch.setattr(
        optimizers, "AdamW", lambda *args, **options: plain(*args, **options | {"fused": False})
    )
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with BlockingCopies() as copies, BlockingCreations(copies.places):
        yield copies
