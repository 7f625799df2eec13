"""A training process: runs the loop, and logs, checks, saves checkpoints and stops.

Several such processes, the ranks, may step together; only the first writes events and files.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from data_catalog.figures import EncoderNames, EncodingsFigures, ModelFigures
from data_catalog.model_files import average_file, checkpoints, step_of
from data_catalog.storage.files import replacing
from data_catalog.storage.manifest import read_manifest
from pipeline.compute.child_processes import STOPPED
from pipeline.compute.core_threads import ONE_THREAD, core_threads
from pipeline.compute.devices import (
    GpuFailure,
    advice_on_memory,
    compiles,
    idle_gpus,
    use_deterministic_algorithms,
    use_device,
)
from pipeline.compute.inference import Inference
from pipeline.compute.ranks import Ranks, joined_ranks
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.mixture import TrainingPairs
from pipeline.dataset.split import Split, split_pairs
from pipeline.train.best_average import NoSuchScore
from pipeline.train.checkpoint_writer import CheckpointWriter
from pipeline.train.checkpoints import (
    CheckpointNotRead,
    CheckpointNotWritten,
    resume,
    whole_weights,
)
from pipeline.train.distillation import load_distiller
from pipeline.train.divergence import (
    Diverged,
    DivergenceMonitor,
    check_weights,
    explain_divergence,
)
from pipeline.train.events import EventLog
from pipeline.train.fast_blocks import speed_up_blocks
from pipeline.train.held_out_checks import HeldOutChecks
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState, initial_state, train_steps
from pipeline.train.pair_sets import mixed_set_figures, open_training_pairs
from pipeline.train.sharding import distribute
from pipeline.train.step_memory import advice_for_less_memory
from pipeline.train.stop import Stop
from tld_model.checkpoint import CheckpointError, save_denoiser
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.vae import load_image_codec

# Failures whose message says what to do.
_EXPLAINED = (
    *(Diverged, CheckpointNotRead, CheckpointNotWritten, GpuFailure),
    *(NoSuchScore, EncoderError, CheckpointError),
)


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that one training process works with."""

    job: TrainJob
    ranks: Ranks
    device: str
    stop: Stop
    log: EventLog
    encoders: EncoderNames
    pairs: TrainingPairs
    split: Split
    inference: Inference
    checks: HeldOutChecks

    def run(self) -> None:
        """Train, and log, validate, sample, score and save at the configured steps."""
        config, encoders = self.job.config, self.encoders.model_dump()
        state, trunk = self._begin(), config.trunk_steps if config.decay_steps else None
        self.checks.prepare(state)
        monitor = DivergenceMonitor(self.ranks)
        with CheckpointWriter(self.job.checkpoints, self.ranks, encoders, trunk) as writer:
            if state.step:
                self.checks.run(state, writer.finished_steps)  # a stop may have interrupted it
            slow = compiles(config, self.device)
            self.log.note("compiling, in the first step" if slow else "computing the first step")
            for step in train_steps(state, self.pairs, config, self.device, self.ranks):
                monitor.add(step)
                self.log.show_step(step.step)
                last = step.step == config.steps
                if last or step.step % config.log_every == 0:
                    self.log.write_step(step.step, *monitor.read(), step.lr)
                self.checks.run(state, writer.finished_steps)
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

    def _begin(self) -> TrainState:
        """The resumed state, or an initial one. For sharding it is created on the CPU."""
        config, start = self.job.config, "cpu" if self.job.is_sharded else self.device
        state = initial_state(config, self.job.model, start, self.inference.threads)
        if self.job.distillation:
            self.checks.distiller = load_distiller(self.job.distillation, self.inference)
            state.loss = self.checks.distiller.per_pair_loss
        resume(state, self.job.checkpoints, start, self.ranks, self.log.warn)
        if config.continue_from and not state.step:
            raise CheckpointNotRead(
                f"no checkpoint in {self.job.checkpoints} can be used; run the same command to "
                f"begin with that of train.continue_from={config.continue_from} again"
            )
        self.log.resume_at(state.step)
        if state.step:
            self.log.write(kind="resumed", step=state.step)
        if warning := idle_gpus(self.device, config.launch.processes):
            self.log.warn(warning)
        speed_up_blocks(state.denoiser, config, self.device, self.ranks, self.log)
        distribute(state, config, self.ranks, self.device)
        return state

    def _finish(self, state: TrainState) -> None:
        """Write the averages as the models, and the result event."""
        self.log.progress(state.step, "writing the model")
        at_checkpoints = [step_of(path) for path in checkpoints(self.job.checkpoints)]
        best = self.checks.finish(at_checkpoints)
        models = [whole_weights(average.denoiser) for average in state.averages]
        losses = self.checks.losses(self.inference.denoiser(state.ema))
        distiller = self.checks.distiller
        if not self.ranks.leads:
            return
        for number, weights in enumerate(models):
            with replacing(self.job.out / average_file(number)) as unfinished:
                save_denoiser(
                    unfinished,
                    weights,
                    self.job.model,
                    self.encoders.model_dump(),
                    sampling=distiller.sampling if distiller else None,
                )
        result = ModelFigures(
            train_pairs=len(self.split.train),
            held_out_pairs=len(self.split.held_out),
            steps=state.step,
            parameters=sum(parameter.numel() for parameter in state.denoiser.parameters()),
            losses=losses,
            best=best,
            mix=mixed_set_figures(self.pairs, state.step * self.job.config.batch_size),
        )
        self.log.write(kind="result", values=result.model_dump(mode="json"))

    def explain(self, error: Diverged) -> str:
        """Explain where the training diverged, and what to do. Writes the keys of the batch."""
        config = self.job.config
        numbers, _ = next(self.pairs.batches(config.batch_size, config.seed, error.step - 1))
        return explain_divergence(error, self.job.out, self.pairs, numbers, self.job.stage)


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
        except _EXPLAINED as error:
            if not ranks.leads:
                raise SystemExit(1) from error
            message = training.explain(error) if isinstance(error, Diverged) else str(error)
            training.log.write(kind="failed", values=message)
            raise SystemExit(message) from error


def _prepare(job: TrainJob, ranks: Ranks, device: str, stop: Stop) -> Training:
    log = EventLog(job.out, job.config.steps, job.config.batch_size, ranks.leads)
    log.note("loading the encodings and the VAE")
    encodings = read_manifest(job.encodings)
    assert encodings is not None, "the parent checked that the encodings are finished"
    own = open_dataset(encodings, job.model.text)
    split = split_pairs(encodings, job.config.held_out_fraction)
    pairs = open_training_pairs(job, own, split)
    encoders = EncodingsFigures.of(encodings).encoders
    codec = load_image_codec(encoders.vae, device) if ranks.leads else None
    # Ranks on a CPU are processes that already share its cores.
    threads = core_threads(device) if ranks.count == 1 else ONE_THREAD
    if threads.count > 1:
        torch.set_num_threads(threads.cores_each)  # for what this thread computes beside them
    inference = Inference(device, job.config.precision, threads)
    checks = HeldOutChecks(job, ranks, stop, log, encodings, own, split, codec, inference)
    return Training(job, ranks, device, stop, log, encoders, pairs, split, inference, checks)


def run_from_arguments() -> None:
    """The command `python -m pipeline.train.worker JOB_FILE [PARENT]` of the stage and torchrun."""
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())


if __name__ == "__main__":
    run_from_arguments()
