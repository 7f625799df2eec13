"""One process of a training: around loop.py it logs, validates, samples, saves and stops.

There may be several that step together (ranks.py); the first of them tells, draws and writes. Knows
nothing of MLflow: it tells events.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data_catalog.model_files import average_file
from data_catalog.storage.files import replacing
from data_catalog.storage.manifest import read_manifest
from pipeline.compute.child_processes import STOPPED
from pipeline.compute.devices import choose_device, use_deterministic_algorithms
from pipeline.compute.ranks import Ranks, joined_ranks
from pipeline.compute.worker_pool import end_with_parent
from pipeline.dataset.batch_order import batch_numbers
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.split import Split, split_pairs
from pipeline.reporting.image_grid import image_grid
from pipeline.scoring.held_out_loss import held_out_loss
from pipeline.train.checkpoints import (
    CheckpointNotRead,
    CheckpointNotWritten,
    checkpoints,
    resume,
    save_checkpoint,
    step_of,
    whole_weights,
)
from pipeline.train.divergence import Diverged, DivergenceMonitor, check_weights, describe_batch
from pipeline.train.events import EventLog
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState, initial_state, train_steps
from pipeline.train.sharding import distribute
from tld_model.checkpoint import save_denoiser
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels, sample

_SAMPLES = 16
_SAMPLE_STEPS = 20
_SAMPLE_GUIDANCE = 3.0
_BATCH_FILE = "bad_batch.txt"

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


class _Interrupted(Exception):
    """Asked to stop while nothing is being trained."""


@dataclass(slots=True)
class Stop:
    """Set when this process is asked to end."""

    requested: bool = False

    def listen(self, parent: int) -> None:
        """To SIGTERM, and to the parent's end."""
        signal.signal(signal.SIGTERM, self._request)
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal's Ctrl-C reaches the parent, which decides
        end_with_parent(parent, grace_s=15, then=self._request)

    def _request(self, *_: object) -> None:
        self.requested = True

    def interrupts(self, denoiser: Denoise) -> Denoise:
        """The denoiser, which refuses once this process is asked to end: sampling may take
        minutes."""

        def denoise(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
            if self.requested:
                raise _Interrupted
            return denoiser(noisy, sigma, text)

        return denoise


@dataclass(frozen=True, slots=True)
class Training:
    """What one process of a training works with."""

    job: TrainJob
    ranks: Ranks
    device: str
    stop: Stop
    log: EventLog
    encoders: dict[str, str]
    pairs: EncodedDataset
    split: Split
    codec: ImageCodec | None  # of the leading rank

    def run(self) -> None:
        """Train, and at set steps log, validate, sample and save."""
        config = self.job.config
        state = self._begin()
        monitor = DivergenceMonitor(self.ranks)
        if state.step:
            self.validate_and_sample(state)  # a stop may have cut it short
        for step in train_steps(state, self.pairs, self.split, config, self.device, self.ranks):
            monitor.add(step)
            last = step.step == config.steps
            if last or step.step % config.log_every == 0:
                self.log.write_step(step.step, *monitor.read(), step.lr)
            self.validate_and_sample(state)
            stopping = self.ranks.any(self.stop.requested)
            if last or stopping or step.step % config.checkpoint_every == 0:
                monitor.read()
                check_weights(state, self.ranks)
                save_checkpoint(state, self.checkpoints, self.ranks)
            if stopping:
                raise SystemExit(STOPPED)
        if self.ranks.any(self.stop.requested):
            raise SystemExit(STOPPED)
        self._finish(state)

    @property
    def checkpoints(self) -> Path:
        return self.job.out / "checkpoints"

    @property
    def _is_sharded(self) -> bool:
        return self.ranks.count > 1 and self.job.config.sharding == "fsdp"

    def _begin(self) -> TrainState:
        """The state where the last process left it, or a fresh one; it is sharded from the CPU."""
        config, start = self.job.config, "cpu" if self._is_sharded else self.device
        state = initial_state(config, self.job.model, start)
        resume(state, self.checkpoints, start, self.ranks, self.log.warn)
        self.log.resume_at(state.step)
        if config.compile:
            state.denoiser.compile_blocks()
        distribute(state, config, self.ranks, self.device)
        return state

    def validate_and_sample(self, state: TrainState) -> None:
        """Where it is time for them: held-out loss and samples of the average. A stop cuts them
        short. The leading rank does it while the others wait, or all together where none has the
        whole model."""
        if not self.ranks.leads and not self._is_sharded:
            return
        config, step = self.job.config, state.step
        ema = state.ema if self._is_sharded else self.stop.interrupts(state.ema)
        grid = f"samples/step-{step:08d}.png"

        def is_due(every: int, what: str) -> bool:
            return (step == config.steps or step % every == 0) and not self.log.already_logged(
                step, what
            )

        with contextlib.suppress(_Interrupted):
            if is_due(config.validate_every, "held_out_loss"):
                losses = held_out_loss(ema, self.pairs, self.split, self.device)
                self.log.write(kind="metrics", step=step, values=losses)
            if is_due(config.sample_every, grid):
                self._sample_grid(ema, self.job.out / grid)
                self.log.write(kind="artifact", step=step, path=grid, folder="samples")

    def _sample_grid(self, ema: Denoise, path: Path) -> None:
        """Samples of the same held-out captions from the same noise: comparable from step to
        step."""
        text = self.pairs.batch(self.split.held_out[:_SAMPLES]).text
        shape = (len(text), *self.pairs.shards[0].latents.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        denoise = guided(ema, _SAMPLE_GUIDANCE)
        latents = sample(
            "dpmpp_2m", denoise, noise, text.to(self.device), noise_levels(_SAMPLE_STEPS)
        )
        if self.codec is None:
            return
        images = self.codec.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as unfinished:
            image_grid(list(images), self.split.held_out_captions[:_SAMPLES]).save(unfinished)

    def _finish(self, state: TrainState) -> None:
        """The averages become the models."""
        models = [whole_weights(average.denoiser) for average in state.averages]
        losses = held_out_loss(state.ema, self.pairs, self.split, self.device)
        if not self.ranks.leads:
            return
        for number, weights in enumerate(models):
            with replacing(self.job.out / average_file(number)) as unfinished:
                save_denoiser(unfinished, weights, self.job.model, self.encoders)
        result = {
            "train_pairs": len(self.split.train),
            "held_out_pairs": len(self.split.held_out),
            "steps": state.step,
            "parameters": sum(parameter.numel() for parameter in state.denoiser.parameters()),
            **losses,
        }
        self.log.write(kind="result", values=result)

    def explain(self, error: Diverged) -> str:
        """Where the training went wrong, on what, and what can be done; the batch's keys go to a
        file."""
        config, out = self.job.config, self.job.out
        numbers = next(
            batch_numbers(self.split.train, config.batch_size, config.seed, error.step - 1)
        )
        (out / _BATCH_FILE).write_text(
            "".join(f"{key}\n" for key in self.pairs.keys(numbers)), encoding="utf-8"
        )
        good = [path for path in checkpoints(self.checkpoints) if step_of(path) < error.step]
        return (
            f"{error} at step {error.step}; {describe_batch(self.pairs, numbers)} (all keys: "
            f"{out / _BATCH_FILE}).\n"
            "The last good checkpoint: "
            f"{good[-1] if good else 'none, it went wrong before the first one'}.\n"
            "The same settings would fail there again: lower train.lr or train.clip_norm, or leave "
            "bad pairs out"
        )


def main(job_file: Path, parent: int) -> None:
    """A child: one rank of a training, which ends with its parent. The environment says which, as
    torchrun's does."""
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    stop = Stop()
    stop.listen(parent)
    if job.config.deterministic:
        use_deterministic_algorithms()
    with joined_ranks(choose_device(job.device)) as (ranks, device):
        training = _prepare(job, ranks, device, stop)
        try:
            training.run()
        except (Diverged, CheckpointNotRead, CheckpointNotWritten) as error:
            if not ranks.leads:
                raise SystemExit(1) from error
            message = training.explain(error) if isinstance(error, Diverged) else str(error)
            training.log.write(kind="failed", values=message)
            raise SystemExit(message) from error


def _prepare(job: TrainJob, ranks: Ranks, device: str, stop: Stop) -> Training:
    encodings = read_manifest(job.encodings)
    assert encodings is not None, "the parent checked that the encodings are finished"
    pairs = open_dataset(encodings, job.model.text)
    split = split_pairs(encodings, job.config.held_out_fraction)
    encoders = encodings.figures["encoders"]
    codec = load_image_codec(encoders["vae"], device) if ranks.leads else None
    log = EventLog(job.out, job.config.steps, job.config.batch_size, ranks.leads)
    return Training(job, ranks, device, stop, log, encoders, pairs, split, codec)


def run_from_arguments() -> None:
    """`python -m pipeline.train.worker JOB_FILE [PARENT]`, as the stage and torchrun start it."""
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())


if __name__ == "__main__":
    run_from_arguments()
