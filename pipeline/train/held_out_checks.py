"""What a training computes on held-out pairs at some steps: the loss, a grid of samples, scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data_catalog.figures import TEACHER_ERROR, BestStep, EncodingsFigures
from data_catalog.storage.files import replacing
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import Workspace
from pipeline.compute.inference import Inference
from pipeline.compute.ranks import Ranks
from pipeline.config.score import HELD_OUT_LOSS
from pipeline.dataset.encoded_dataset import EncodedDataset
from pipeline.dataset.split import Split
from pipeline.held_out.samples import decode, load_scorers, select_held_out
from pipeline.reporting.image_grid import image_grid
from pipeline.scoring.held_out_loss import held_out_loss
from pipeline.train.best_average import BestAverage, CheckpointSteps
from pipeline.train.distillation import Distiller, relative_error
from pipeline.train.events import SCORES, EventLog
from pipeline.train.job import TrainJob
from pipeline.train.loop import TrainState
from pipeline.train.sample_scores import SAMPLING, SampleScorer
from pipeline.train.stop import Interrupted, Stop
from tld_model.encoders.vae import ImageCodec
from tld_model.sampler import DenoiseFn, guided, noise_levels

_SAMPLES = 16
_COMPARED = 64  # held-out captions on which a student is compared with its teacher


@dataclass(frozen=True, slots=True)
class _ScoringProgress:
    """Shows how far a scoring is, in place of the step's progress. A stop interrupts it."""

    log: EventLog
    step: int
    interrupt: Callable[[], None]

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.interrupt()
        self.log.progress(self.step, f"scoring step {self.step}: {done} of {total} {note}")


@dataclass(slots=True)
class HeldOutChecks:
    """Computes on held-out pairs, at the steps where it is due. A stop interrupts it. The leading
    rank does this while the others wait; if the model is sharded, all ranks take part, and nothing
    interrupts them."""

    job: TrainJob
    ranks: Ranks
    stop: Stop
    log: EventLog
    encodings: Manifest
    pairs: EncodedDataset
    split: Split
    codec: ImageCodec | None  # only on the leading rank
    inference: Inference
    distiller: Distiller | None = None  # of the stage distill
    _scorer: SampleScorer | None = None
    _best: BestAverage | None = None
    _reference: Tensor | None = None  # samples of the teacher

    def prepare(self, state: TrainState) -> None:
        """Load what scores samples, and take over what earlier processes scored, if the training
        scores at all.

        Raises:
            EncoderError: a network that scores cannot be loaded.
            CheckpointNotRead: the best average until now is missing or damaged.
        """
        score, takes_part = self.job.config.score, self.ranks.leads or self.job.is_sharded
        if not score.every or not takes_part:
            return
        encoders, inference = EncodingsFigures.of(self.encodings).encoders, self._interruptible
        models = None
        if self.codec is not None:
            features = score.features or ()
            models = load_scorers(state.ema, self.codec, inference, encoders, features)
        part = slice(score.prompts)
        held_out = select_held_out(
            self.pairs, self.split.held_out[part], self.split.held_out_captions[part]
        )
        workspace = Workspace(self.job.out.parents[1])
        self._scorer = SampleScorer(score, held_out, self.encodings, inference, models, workspace)
        if score.best_by:
            self._best = BestAverage(self.job, self.ranks, encoders.model_dump())
            self._best.resume(self.log.scored)

    def run(self, state: TrainState, checkpoint_steps: CheckpointSteps) -> None:
        """Compute and log what is due at the state's step and was not logged before."""
        if not self.ranks.leads and not self.job.is_sharded:
            return
        config, step = self.job.config, state.step
        ema = self._interruptible.denoiser(state.ema)
        grid = f"samples/step-{step:08d}.png"

        def is_due(every: int, what: str) -> bool:
            due = step == config.steps or step % every == 0
            return due and not self.log.already_logged(step, what)

        scores = self._scorer and config.score.is_due(step, config.steps)
        with contextlib.suppress(Interrupted):
            loss = TEACHER_ERROR if self.distiller else HELD_OUT_LOSS
            losses: dict[str, float] | None = None
            if is_due(1 if scores else config.validate_every, loss):
                self.log.progress(step, "computing the held-out loss")
                losses = self.losses(ema)
                self.log.write(kind="metrics", step=step, values=losses)
            if is_due(config.sample_every, grid):
                self.log.progress(step, "sampling held-out captions")
                self._sample_grid(ema, self.job.out / grid)
                self.log.write(kind="artifact", step=step, path=grid, folder="samples")
            if scores and not self.log.already_logged(step, SCORES):
                self._score(state, checkpoint_steps, losses)

    def losses(self, ema: DenoiseFn) -> dict[str, float]:
        """The held-out loss, or how far a student is from its teacher on held-out captions."""
        if self.distiller is None:
            return held_out_loss(ema, self.pairs, self.split, self.inference.device)
        noise, text = self._inputs(_COMPARED)
        if self._reference is None:
            self._reference = self.distiller.samples(noise, text, self._interruptible)
        levels = noise_levels(self.distiller.sample_steps)
        samples = self.inference.sample("euler", ema, noise, text, levels)
        return {TEACHER_ERROR: relative_error(samples, self._reference)}

    def finish(self, checkpoint_steps: Iterable[int]) -> BestStep | None:
        """Put the best average beside the model, on the leading rank."""
        return self._best.finish(checkpoint_steps) if self._best and self.ranks.leads else None

    def _score(
        self,
        state: TrainState,
        checkpoint_steps: CheckpointSteps,
        losses: dict[str, float] | None,
    ) -> None:
        """Score the first average, and keep it if it is the best until now. `losses` are those of
        this step, or None if an earlier process has logged them."""
        assert self._scorer, "the caller checked this"
        step, score = state.step, self.job.config.score
        values = self._scorer.scores(state.ema, _ScoringProgress(self.log, step, self._interrupt))
        by = values
        if score.best_by == HELD_OUT_LOSS:
            by = losses or self.losses(self._interruptible.denoiser(state.ema))
        best = self._best and self._best.offer(state, by, checkpoint_steps)
        self.log.write_scores(step, values, best)

    def _inputs(self, count: int) -> tuple[Tensor, Tensor]:
        """Noise and text of the first held-out captions, the same at every step."""
        text = self.pairs.batch(self.split.held_out[:count]).text
        shape = (len(text), *self.pairs.shards[0].latents.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return noise.to(self.inference.device), text.to(self.inference.device)

    def _sample_grid(self, ema: DenoiseFn, path: Path) -> None:
        """Sample the same held-out captions from the same noise, so that steps can be compared."""
        noise, text = self._inputs(_SAMPLES)
        how = self.distiller.sampling if self.distiller else SAMPLING.sampling
        denoise, levels = guided(ema, how.guidance), noise_levels(how.steps)
        latents = self.inference.sample(how.solver, denoise, noise, text, levels)
        if self.codec is None:
            return
        images = decode(self.codec, self.inference, latents, _SAMPLES)
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as unfinished:
            image_grid(list(images), self.split.held_out_captions[:_SAMPLES]).save(unfinished)

    @property
    def _interruptible(self) -> Inference:
        return replace(self.inference, before_call=self._interrupt)

    def _interrupt(self) -> None:
        if not self.job.is_sharded:
            self.stop.interrupt()
