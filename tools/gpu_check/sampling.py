"""The section on sampling: 36 images in 15 guided steps with decoding, in each arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.compute.inference import inference_on
from pipeline.config.run import RunConfig
from tld_model.config import Precision
from tld_model.denoiser import Denoiser
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.sampler import guided, noise_levels
from tools.gpu_check.data import scratch_folder
from tools.gpu_check.encoders import make_vae
from tools.gpu_check.machine import Figures, Machine
from tools.gpu_check.steps import batch_on

_GUIDANCE = 4.5
# name -> precision of the denoiser, and of float32 matrix products
_ARITHMETIC: dict[str, tuple[Precision, str]] = {
    "fp32": ("fp32", "highest"),
    "tf32": ("fp32", "high"),
    "bf16": ("bf16", "high"),
}


def sample(device: str) -> Figures:
    """Seconds of sampling and of decoding, how far images are from those in fp32, and waits."""
    machine = Machine(device)
    config = machine.config()
    count, steps = machine.size(36, 2), machine.size(15, 3)
    yield "images", count
    yield "steps", steps
    denoiser = Denoiser(config.model).to(machine.device).eval()
    samplers = {name: _sampler(machine, config, denoiser, name) for name in _ARITHMETIC}
    noise = batch_on(machine, config, count)
    # One with random weights would show no differences.
    trained = load_image_codec("shapes-vae", machine.device)
    exact = _decoded(trained, samplers["fp32"](noise.latents, noise.text, steps))
    for name, sampler in samplers.items():

        def work(sampler: Callable[..., Tensor] = sampler) -> Tensor:
            return sampler(noise.latents, noise.text, steps)

        images = _decoded(trained, work())
        where = machine.synchronizations(work)
        yield (
            name,
            {
                "seconds": round(machine.milliseconds(work) / 1e3, 5),
                "host_s": round(machine.host_milliseconds(work) / 1e3, 5),
                "synchronizations": where if where is None else len(where),
                "where": sorted(set(where or ())),
                **_differences(images, exact),
            },
        )
    yield "decode_s", _decoding_s(machine, samplers["bf16"](noise.latents, noise.text, steps))
    one = noise.latents[:1], noise.text[:1]
    ms = machine.milliseconds(lambda: samplers["bf16"](*one, steps))
    yield "one_image_bf16_s", round(ms / 1e3, 5)


def _sampler(
    machine: Machine, config: RunConfig, denoiser: Denoiser, name: str
) -> Callable[[Tensor, Tensor, int], Tensor]:
    precision, products = _ARITHMETIC[name]
    inference = inference_on(machine.device, precision)
    denoise = guided(inference.denoiser(denoiser), _GUIDANCE)

    def sample(noise: Tensor, text: Tensor, steps: int) -> Tensor:
        torch.set_float32_matmul_precision(products)
        return inference.sample(config.evaluate.solver, denoise, noise, text, noise_levels(steps))

    return sample


def _decoded(codec: ImageCodec, latents: Tensor) -> Tensor:
    torch.set_float32_matmul_precision("highest")
    return codec.decode(latents)


def _differences(images: Tensor, exact: Tensor) -> dict[str, Any]:
    """In levels of 255."""
    levels = (images.int() - exact.int()).abs()
    return {
        "mean_levels": round(levels.float().mean().item(), 4),
        "largest_levels": int(levels.max().item()),
    }


def _decoding_s(machine: Machine, latents: Tensor) -> float:
    """The duration of decoding with an autoencoder in the shape of SDXL's."""
    with scratch_folder() as scratch:
        codec = load_image_codec(make_vae(scratch, machine), machine.device)
    return round(machine.milliseconds(lambda: codec.decode(latents)) / 1e3, 5)
