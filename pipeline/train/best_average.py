"""The best average of a training: that of the scored step with the best value of a score.

The file of each best average so far lies among the checkpoints, and the event of its scores names
it with its digest. Both are kept as long as a checkpoint remains from which a training may resume
after that step and before a better one. So the best follows from settings, data and seed, whatever
interrupts the training, and a longer training of the same trunk takes it over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from data_catalog.figures import BestStep
from data_catalog.model_files import BEST, CHECKPOINTS_FOLDER, average_file, best_path
from data_catalog.scores import score_of
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.digests import file_digest
from data_catalog.storage.files import link_or_copy, replacing
from pipeline.compute.ranks import Ranks
from pipeline.config.train import TrainConfig
from pipeline.train.checkpoints import CheckpointNotRead, CheckpointNotWritten, whole_weights
from pipeline.train.events import scored_events
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState
from tld_model.checkpoint import save_denoiser
from tld_model.training_state import DamagedState

Event = Mapping[str, Any]
CheckpointSteps = Callable[[], Iterable[int]]
"""Waits until all checkpoints are written, and returns their steps."""


class NoSuchScore(RuntimeError):
    """The score of train.score.best_by is not among those that were computed."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A value that was better than all before it, and the digest of the average's file."""

    value: float
    digest: str


@dataclass(slots=True)
class BestAverage:
    """Keeps the best averages of a training."""

    job: TrainJob
    ranks: Ranks
    encoders: Mapping[str, Any]
    _records: dict[int, _Record] = field(default_factory=dict)  # step -> record, in their order

    @property
    def score(self) -> str:
        """The score that chooses."""
        assert self.job.config.score.best_by, "without it there is no best average"
        return self.job.config.score.best_by

    def resume(self, events: Iterable[Event]) -> None:
        """Take over what earlier processes scored. Raises CheckpointNotRead if the file of the best
        so far is missing or damaged."""
        self._records = {
            event["step"]: _Record(event[BEST]["value"], event[BEST]["sha256"])
            for event in _records_of(events, self.job.config)
        }
        if self._records and self.ranks.leads:
            self._check(max(self._records))

    def offer(
        self, state: TrainState, values: Mapping[str, float], checkpoint_steps: CheckpointSteps
    ) -> dict[str, Any] | None:
        """Keep the first average if its scores are the best so far, and return what the event of
        the scores says of its file; else None. If the model is sharded, every rank must call this;
        only the leading one needs `values`.

        Raises:
            NoSuchScore: the score is not among the values.
            CheckpointNotWritten: the disk refused the file.
        """
        is_best = self.ranks.leads and self._is_best(values, state.step)
        if self.job.is_sharded:
            is_best = self.ranks.any(is_best)
        if not is_best:
            return None
        weights = whole_weights(state.ema)
        if not self.ranks.leads:
            return None
        at_checkpoints = checkpoint_steps()  # now no thread removes unfinished files
        path = best_path(self.job.checkpoints, state.step)
        digest = self._write(path, weights)
        self._records[state.step] = _Record(values[self.score], digest)
        self._remove_others(at_checkpoints)
        return {"file": path.name, "sha256": digest, "value": values[self.score]}

    def finish(self, checkpoint_steps: Iterable[int]) -> BestStep:
        """Put the best average beside the model. Raises CheckpointNotRead if its file is missing or
        damaged."""
        step = max(self._records)
        self._check(step)
        with replacing(self.job.out / average_file(BEST)) as unfinished:
            link_or_copy(best_path(self.job.checkpoints, step), unfinished)
        self._remove_others(checkpoint_steps)
        return BestStep(score=self.score, step=step, value=self._records[step].value)

    def _is_best(self, values: Mapping[str, float], step: int) -> bool:
        """Whether a value is better than those of earlier steps; the first of equal ones stays."""
        if self.score not in values:
            raise NoSuchScore(
                f"train.score.best_by={self.score}: the scores of step {step} lack it; they are "
                f"{', '.join(values)}"
            )
        value, before = values[self.score], [s for s in self._records if s < step]
        if not before:
            return True
        best = self._records[max(before)].value
        if math.isnan(value) or math.isnan(best):
            return math.isnan(best) and not math.isnan(value)
        return value > best if score_of(self.score).higher_is_better else value < best

    def _write(self, path: Path, weights: Mapping[str, Any]) -> str:
        try:
            # Without parents: an output folder that was removed must not be created again.
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as unfinished:
                save_denoiser(unfinished, weights, self.job.model, self.encoders)
                return file_digest(unfinished)
        except (OSError, SafetensorError) as error:
            raise CheckpointNotWritten(
                f"could not write the best average so far, {path}: {error}. Free enough space for "
                "some more of them, and run the same command to resume"
            ) from error

    def _remove_others(self, checkpoint_steps: Iterable[int]) -> None:
        """Remove the files of averages that no training can need: it resumes from one of these
        checkpoints, and the best until then is one of those that stay."""
        steps = [*checkpoint_steps, max(self._records)]
        needed = {
            max(before) for end in steps if (before := [s for s in self._records if s <= end])
        }
        names = {best_path(self.job.checkpoints, step) for step in needed}
        for path in self.job.checkpoints.glob(f"{BEST}-*.safetensors"):
            if path not in names:
                path.unlink(missing_ok=True)

    def _check(self, step: int) -> None:
        path = best_path(self.job.checkpoints, step)
        if not _is_whole(path, self._records[step].digest):
            raise CheckpointNotRead(
                f"{path} is missing or damaged: the best average until now, of step {step}. Put it "
                "back, or train anew with `tld train … --force`"
            )


def link_best_average(config: TrainConfig, other: Path, out: Path) -> None:
    """Link the best average of another training into the folder of one that has just taken over its
    events up to a checkpoint.

    Raises:
        FileNotFoundError: the other training has just removed it.
        DamagedState: it is damaged.
    """
    if not config.score.best_by:
        return
    records = _records_of(scored_events(out), config)
    if not records:
        return
    best = max(records, key=lambda event: event["step"])
    source, target = (best_path(f / CHECKPOINTS_FOLDER, best["step"]) for f in (other, out))
    link_or_copy(ensure_local(source), target)
    if not _is_whole(target, best[BEST]["sha256"]):
        raise DamagedState(f"the best average until then, {source}, is damaged")


def _records_of(events: Iterable[Event], config: TrainConfig) -> list[Event]:
    """The events of scored steps that were the best until then. The last step of a shorter training
    is not a scored one of this."""
    return [e for e in events if e[BEST] and config.score.is_due(e["step"], config.steps)]


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return file_digest(ensure_local(path)) == digest
    except FileNotFoundError:
        return False
