"""A thread that writes checkpoints while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from data_catalog.model_files import checkpoints, step_of
from pipeline.compute.ranks import Ranks
from pipeline.train.checkpoints import checkpoint_of, write_checkpoint
from pipeline.train.loop import TrainState


class CheckpointWriter:
    """Writes one checkpoint at a time, from a copy of the state. At the end of the context the last
    one is whole."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        encoders: Mapping[str, Any] | None = None,
        trunk_steps: int | None = None,
    ) -> None:
        self._folder, self._ranks = folder, ranks
        self._encoders, self._trunk_steps = encoders, trunk_steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def finished_steps(self) -> list[int]:
        """Wait until the checkpoint is written, and return the steps of those in the folder, where
        nothing writes then. Raises CheckpointNotWritten if it was not."""
        self.wait()
        return [step_of(path) for path in checkpoints(self._folder)]

    def save(self, state: TrainState) -> None:
        """Copy the state, and let the thread write it. Every rank must call this; one writes.
        Raises CheckpointNotWritten if the disk refused the previous one."""
        self.wait()
        content = checkpoint_of(state, self._encoders)
        if self._ranks.leads:
            content = _copied(content)
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # until the copies have arrived
            self._writing = self._thread.submit(
                write_checkpoint, content, self._folder, self._trunk_steps
            )

    def wait(self) -> None:
        """Wait until the checkpoint is written. Raises CheckpointNotWritten if it was not."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None or isinstance(error, SystemExit):
            self.wait()


def _copied(tree: Any) -> Any:
    """The same tree with copies of its tensors in the memory of the host."""
    if isinstance(tree, Tensor):
        copy = torch.empty_like(tree, device="cpu", pin_memory=tree.is_cuda)
        return copy.copy_(tree, non_blocking=True)
    if isinstance(tree, dict):
        return {name: _copied(branch) for name, branch in tree.items()}
    return tree
