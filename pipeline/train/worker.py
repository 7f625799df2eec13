"""A training process: runs the loop, and logs, validates, samples, saves checkpoints and stops.

Several such processes, the ranks, may step together; only the first writes events and files.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from data_catalog.figures import EncoderNames, EncodingsFigures, ModelFigures
from data_catalog.model_files import CHECKPOINTS_FOLDER, average_file
from data_catalog.storage.files import replacing
from data_catalog.storage.manifest import read_manifest
from pipeline.compute.child_processes import STOPPED
from pipeline.compute.core_threads import ONE_THREAD, core_threads
from pipeline.compute.devices import (
    GpuFailure,
    advice_on_memory,
    idle_gpus,
    use_deterministic_algorithms,
    use_device,
)
from pipeline.compute.inference import Inference
from pipeline.compute.ranks import Ranks, joined_ranks
from pipeline.dataset.batch_order import batch_numbers
from pipeline.dataset.encoded_dataset import EncodedDataset, open_dataset
from pipeline.dataset.split import Split, split_pairs
from pipeline.reporting.image_grid import image_grid
from pipeline.scoring.held_out_loss import held_out_loss
from pipeline.train.checkpoint_writer import CheckpointWriter
from pipeline.train.checkpoints import (
    CheckpointNotRead,
    CheckpointNotWritten,
    resume,
    whole_weights,
)
from pipeline.train.divergence import (
    Diverged,
    DivergenceMonitor,
    check_weights,
    explain_divergence,
)
from pipeline.train.events import EventLog
from pipeline.train.fast_blocks import speed_up_blocks
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState, initial_state, train_steps
from pipeline.train.sharding import distribute
from pipeline.train.step_memory import advice_for_less_memory
from pipeline.train.stop import Denoise, Interrupted, Stop
from tld_model.checkpoint import save_denoiser
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels

_SAMPLES = 16
_SAMPLE_STEPS = 20
_SAMPLE_GUIDANCE = 3.0


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that one training process works with."""

    job: TrainJob
    ranks: Ranks
    device: str
    stop: Stop
    log: EventLog
    encoders: EncoderNames
    pairs: EncodedDataset
    split: Split
    codec: ImageCodec | None  # only on the leading rank
    inference: Inference

    def run(self) -> None:
        """Train, and log, validate, sample and save at the configured steps."""
        config, encoders = self.job.config, self.encoders.model_dump()
        state, trunk = self._begin(), config.trunk_steps if config.decay_steps else None
        monitor = DivergenceMonitor(self.ranks)
        if state.step:
            self.validate_and_sample(state)  # a stop may have interrupted it
        with CheckpointWriter(self.checkpoints, self.ranks, encoders, trunk) as writer:
            for step in train_steps(state, self.pairs, self.split, config, self.device, self.ranks):
                monitor.add(step)
                last = step.step == config.steps
                if last or step.step % config.log_every == 0:
                    self.log.write_step(step.step, *monitor.read(), step.lr)
                self.validate_and_sample(state)
                stopping = self.ranks.any(self.stop.requested)
                is_due = last or step.step == trunk or step.step % config.checkpoint_every == 0
                if is_due or stopping:
                    monitor.read()
                    check_weights(state, self.ranks)
                    writer.save(state)
                if stopping:
                    raise SystemExit(STOPPED)
        if self.ranks.any(self.stop.requested):
            raise SystemExit(STOPPED)
        self._finish(state)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.job.out / CHECKPOINTS_FOLDER

    @property
    def _is_sharded(self) -> bool:
        return self.ranks.count > 1 and self.job.config.sharding == "fsdp"

    def _begin(self) -> TrainState:
        """The resumed state, or an initial one. For sharding it is created on the CPU."""
        config, start = self.job.config, "cpu" if self._is_sharded else self.device
        state = initial_state(config, self.job.model, start, self.inference.threads)
        resume(state, self.checkpoints, start, self.ranks, self.log.warn)
        if config.continue_from and not state.step:
            raise CheckpointNotRead(
                f"no checkpoint in {self.checkpoints} can be used; run the same command to begin "
                f"with that of train.continue_from={config.continue_from} again"
            )
        self.log.resume_at(state.step)
        if warning := idle_gpus(self.device, config.launch.processes):
            self.log.warn(warning)
        speed_up_blocks(state.denoiser, config, self.device, self.ranks, self.log)
        distribute(state, config, self.ranks, self.device)
        return state

    def validate_and_sample(self, state: TrainState) -> None:
        """Compute the held-out loss and a grid of samples of the averaged model, at the steps where
        they are due. A stop interrupts them. The leading rank does this while the others wait; if
        the model is sharded, all ranks take part."""
        if not self.ranks.leads and not self._is_sharded:
            return
        config, step = self.job.config, state.step
        ema = self.inference.denoiser(state.ema)
        if not self._is_sharded:
            ema = self.stop.interrupts(ema)
        grid = f"samples/step-{step:08d}.png"

        def is_due(every: int, what: str) -> bool:
            return (step == config.steps or step % every == 0) and not self.log.already_logged(
                step, what
            )

        with contextlib.suppress(Interrupted):
            if is_due(config.validate_every, "held_out_loss"):
                losses = held_out_loss(ema, self.pairs, self.split, self.device)
                self.log.write(kind="metrics", step=step, values=losses)
            if is_due(config.sample_every, grid):
                self._sample_grid(ema, self.job.out / grid)
                self.log.write(kind="artifact", step=step, path=grid, folder="samples")

    def _sample_grid(self, ema: Denoise, path: Path) -> None:
        """Sample the same held-out captions from the same noise, so that steps can be compared."""
        text = self.pairs.batch(self.split.held_out[:_SAMPLES]).text
        shape = (len(text), *self.pairs.shards[0].latents.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        denoise = guided(ema, _SAMPLE_GUIDANCE)
        latents = self.inference.sample(
            "dpmpp_2m", denoise, noise, text.to(self.device), noise_levels(_SAMPLE_STEPS)
        )
        if self.codec is None:
            return
        images = (
            self.inference.threads.by_rows(self.codec.decode)(latents)
            .permute(0, 2, 3, 1)
            .cpu()
            .numpy()
        )
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as unfinished:
            image_grid(list(images), self.split.held_out_captions[:_SAMPLES]).save(unfinished)

    def _finish(self, state: TrainState) -> None:
        """Write the averages as the models, and the result event."""
        models = [whole_weights(average.denoiser) for average in state.averages]
        ema = self.inference.denoiser(state.ema)
        losses = held_out_loss(ema, self.pairs, self.split, self.device)
        if not self.ranks.leads:
            return
        for number, weights in enumerate(models):
            with replacing(self.job.out / average_file(number)) as unfinished:
                save_denoiser(unfinished, weights, self.job.model, self.encoders.model_dump())
        result = ModelFigures(
            train_pairs=len(self.split.train),
            held_out_pairs=len(self.split.held_out),
            steps=state.step,
            parameters=sum(parameter.numel() for parameter in state.denoiser.parameters()),
            losses=losses,
        )
        self.log.write(kind="result", values=result.model_dump(mode="json"))

    def explain(self, error: Diverged) -> str:
        """Explain where the training diverged, and what to do. Writes the keys of the batch."""
        config = self.job.config
        numbers = next(
            batch_numbers(self.split.train, config.batch_size, config.seed, error.step - 1)
        )
        return explain_divergence(error, self.job.out, self.pairs, numbers)


def main(job_file: Path, parent: int) -> None:
    """Run one rank of a training, which ends with its parent, in an environment as of torchrun."""
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    stop = Stop()
    stop.listen(parent)
    if job.config.deterministic:
        use_deterministic_algorithms()
    with joined_ranks(use_device(job.device)) as (ranks, device):
        training = _prepare(job, ranks, device, stop)
        try:
            with advice_on_memory(advice_for_less_memory(job.config)):
                training.run()
        except (Diverged, CheckpointNotRead, CheckpointNotWritten, GpuFailure) as error:
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
    encoders = EncodingsFigures.of(encodings).encoders
    codec = load_image_codec(encoders.vae, device) if ranks.leads else None
    log = EventLog(job.out, job.config.steps, job.config.batch_size, ranks.leads)
    # Ranks on a CPU are processes that already share its cores.
    threads = core_threads(device) if ranks.count == 1 else ONE_THREAD
    if threads.count > 1:
        torch.set_num_threads(threads.cores_each)  # for what this thread computes beside them
    inference = Inference(device, job.config.precision, threads)
    return Training(job, ranks, device, stop, log, encoders, pairs, split, codec, inference)


def run_from_arguments() -> None:
    """The command `python -m pipeline.train.worker JOB_FILE [PARENT]` of the stage and torchrun."""
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())


if __name__ == "__main__":
    run_from_arguments()
