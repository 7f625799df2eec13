"""The loss of a distillation: where a guided teacher's path ends in each of a few segments.

The noise levels from 0.99 to 0 are divided into as many segments as the student has steps. From a
noisy latent at the upper end of a segment the teacher, with guidance, takes several small steps to
the lower end, and the student learns to take them in one: progressive distillation (Salimans and
Ho, 2022) of a guided model (Meng et al., 2023), in one round. The student is an ordinary denoiser.
It samples with Euler's method at the segments' upper ends, without guidance.

b batch   c channels   z latent size
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.compute.devices import autocast
from pipeline.compute.inference import Inference
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.job import Distillation
from pipeline.train.loss import StepRandomness, largest_weight
from tld_model.checkpoint import load_denoiser
from tld_model.config import DenoiserConfig, SamplingSettings
from tld_model.diffusion import add_noise, denoising_loss
from tld_model.sampler import HIGHEST_NOISE_LEVEL, DenoiseFn, guided, noise_levels


@dataclass(frozen=True, slots=True)
class Distiller:
    """A teacher with guidance, and the segments that its student takes in one step each."""

    teacher: DenoiseFn
    sample_steps: int
    teacher_steps: int

    @property
    def sampling(self) -> SamplingSettings:
        """How the student samples."""
        return SamplingSettings(self.sample_steps, guidance=1.0, solver="euler")

    def per_pair_loss(
        self,
        network: Callable[..., Tensor],
        model: DenoiserConfig,
        batch: Batch,
        choices: StepRandomness,
        config: TrainConfig,
    ) -> Tensor:
        """Add noise to the pairs up to the upper end of a segment each, and compare the student's
        step with those of the teacher: [b]"""
        start, end = self._segments(choices.sigma)
        noisy = add_noise(batch.latents, choices.noise, start)
        with autocast(str(noisy.device), config.precision):
            with torch.no_grad():
                target = self._target(noisy, batch.text, start, end)
            predicted = network(noisy, start, batch.text, None)
        bound = largest_weight(config, model)
        return denoising_loss(predicted, target, start, bound, config.loss_weight)

    def samples(self, noise: Tensor, text: Tensor, inference: Inference) -> Tensor:
        """Samples of the teacher [b, c, z, z]."""

        def teacher(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
            inference.before_call()
            return self.teacher(noisy, sigma, text)

        levels = noise_levels(self.teacher_steps)
        return inference.sample("dpmpp_2m", teacher, noise, text, levels)

    def _segments(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Upper and lower ends of the segments that contain noise levels [b]: neighbours among
        noise_levels(sample_steps) and 0. Nothing here waits for a GPU."""
        segment = ((1 - sigma) * self.sample_steps).floor().clamp(0, self.sample_steps - 1)
        start = (1 - segment / self.sample_steps).clamp_max(HIGHEST_NOISE_LEVEL)
        return start, 1 - (segment + 1) / self.sample_steps

    def _target(self, noisy: Tensor, text: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """The clean latent whose prediction takes a student from the start of each row's segment to
        where the teacher ends: [b, c, z, z]"""
        reached = self._follow(noisy, text, start, end)
        ratio = _as_column(end / start)
        return (reached - ratio * noisy) / (1 - ratio)

    def _follow(self, x: Tensor, text: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Follow the teacher's path from noise levels [b] to lower ones [b] by DPM-Solver++(2M) as
        in tld_model.sampler, where all rows are at the same level."""
        steps = self.teacher_steps // self.sample_steps
        older: Tensor | None = None
        last_h = torch.ones_like(start)
        for step in range(steps):
            level = torch.lerp(start, end, step / steps)
            following = torch.lerp(start, end, (step + 1) / steps)
            clean = estimate = self.teacher(x, level, text)
            h = _log_snr(following) - _log_snr(level)
            if older is not None:
                ahead = clean + (clean - older) * _as_column(h / (2 * last_h))
                # At level 0, where h is infinite, the prediction itself is the end of the path.
                estimate = torch.where(_as_column(following) > 0, ahead, clean)
            ratio = _as_column(following / level)
            x = ratio * x + (1 - ratio) * estimate
            older, last_h = clean, h
        return x


def relative_error(samples: Tensor, reference: Tensor) -> float:
    """The root mean square of the difference, relative to the standard deviation of the
    reference."""
    return float((samples - reference).square().mean().sqrt() / reference.std())


def _log_snr(level: Tensor) -> Tensor:
    return ((1 - level) / level).log()


def _as_column(values: Tensor) -> Tensor:
    """[b] -> [b, 1, 1, 1]"""
    return values[:, None, None, None]


def load_distiller(job: Distillation, inference: Inference) -> Distiller:
    """The teacher on the device of its student. Raises CheckpointError."""
    teacher = load_denoiser(job.teacher, inference.device).requires_grad_(False)
    denoise = guided(inference.denoiser(teacher), job.guidance)
    return Distiller(denoise, job.sample_steps, job.teacher_steps)
