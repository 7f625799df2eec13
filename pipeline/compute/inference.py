"""How a denoiser runs for sampling: its device, its precision, and the threads of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.compute.core_threads import CoreThreads, core_threads
from pipeline.compute.devices import autocast
from tld_model.config import Precision, SolverName
from tld_model.denoiser import Denoiser
from tld_model.sampler import DenoiseFn, sample

# Multiplications of a call: below, the Python code around them takes longer, which threads share.
_LEAST_PRODUCTS = 400_000_000


@dataclass(frozen=True, slots=True)
class Inference:
    """A device (cpu, cuda, cuda:1), the arithmetic of the denoiser, and the threads of a CPU."""

    device: str
    precision: Precision
    threads: CoreThreads
    before_call: Callable[[], None] = lambda: None  # of the denoiser
    after_prediction: Callable[[Tensor], None] = lambda _: None  # of clean latents [b, c, y, x]

    def denoiser(self, denoiser: Denoiser) -> Callable[..., Tensor]:
        """The denoiser, some rows of a batch in each thread. Its predictions are float32 in any
        precision, because guidance and solvers subtract nearly equal ones."""

        def predict(*inputs: Tensor | None) -> Tensor:
            predicted: Tensor = denoiser(*inputs)
            return predicted.float()

        in_threads = self.threads.by_rows(predict, _least_rows(denoiser))

        def call(*inputs: Tensor | None) -> Tensor:
            self.before_call()
            return in_threads(*inputs)

        return call

    def sample(
        self,
        solver: SolverName,
        denoise: DenoiseFn,
        noise: Tensor,
        text: Tensor,
        levels: Sequence[float],
    ) -> Tensor:
        """`tld_model.sampler.sample` in this precision. A GPU converts the weights to it once, at
        the first step."""

        def predict(noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
            clean = denoise(noisy, sigma, text)
            self.after_prediction(clean)
            return clean

        with autocast(self.device, self.precision):
            return sample(solver, predict, noise, text, levels)


def _least_rows(denoiser: Denoiser) -> int:
    """The number of rows whose matrix products are worth several threads."""
    weights = sum(weight.numel() for weight in denoiser.parameters())
    return _LEAST_PRODUCTS // max(1, weights * denoiser.config.tokens)


def inference_on(device: str, precision: Precision = "auto") -> Inference:
    """Inference on a device that `use_device` has prepared."""
    return Inference(device, precision, core_threads(device))
