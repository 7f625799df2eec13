"""Speed of training and sampling with the run's own model, on random inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench.measure import (
    Measurement,
    Memory,
    Speed,
    Works,
    forget_peak,
    largest_batch,
    matrix_product,
    measure,
    measure_in_turns,
    memory,
    mib,
)
from pipeline.bench.memory_fit import in_parts_that_fit, memory_fit
from pipeline.bench.original_step import OriginalTraining
from pipeline.bench.synthetic_data import LONGEST_CAPTION
from pipeline.compute.core_threads import core_threads
from pipeline.compute.devices import choose_device, has_bf16, torch_threads, use_device
from pipeline.compute.inference import inference_on
from pipeline.config.run import RunConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.fast_blocks import speed_up_blocks
from pipeline.train.loop import initial_state, train_step
from pipeline.train.loss import StepRandomness, step_randomness
from pipeline.train.step_memory import step_memories, usable_memory
from tld_model.denoiser import Denoiser
from tld_model.encoders.vae import ImageCodec, load_image_codec
from tld_model.original_layouts import unsupported_settings
from tld_model.sampler import guided, noise_levels

_LEAST_BATCH = 8  # for training on a CPU, where a step with a large batch takes minutes


def measure_training(config: RunConfig, report: Callable[[str], None]) -> Measurement:
    """Training steps and, in turns with them, the fastest matrix products of this device and the
    steps of the original project."""
    device = use_device(config.train.device)
    threads = core_threads(device)
    before = memory()
    forget_peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    state = initial_state(config.train, config.model, device, threads)
    memories = step_memories(
        state, config.train, lambda count: _step_inputs(config, count, device), threads.count
    )
    fit = memory_fit(memories, config.train, usable_memory(device))
    if device.startswith("cuda"):
        config = in_parts_that_fit(config, memories.of(config.train), usable_memory(device))
    speed_up_blocks(state.denoiser, config.train, device)

    def steps_of(count: int) -> Callable[[], int]:
        batch, choices = _step_inputs(config, count, device)

        def step() -> int:
            with torch_threads(threads.cores_each):
                train_step(state, batch, choices, config.train).loss.item()
            return count

        return step

    size = config.train.batch_size
    if not device.startswith("cuda"):
        parts = config.train.accumulate * (2 if config.train.contrastive else 1)
        size = largest_batch(steps_of, size, parts * math.ceil(_LEAST_BATCH / parts))
    step = steps_of(size)
    for _ in range(2):  # the state of the optimizer takes memory from the second step on
        step()
    figures: dict[str, Any] = {"batch_size": size, "configured_batch_size": config.train.batch_size}
    figures |= _memory_since(before, device) | {
        "accumulate": config.train.accumulate,
        "step_memory": fit,
    }
    peaks = {name: matrix_product(device, dtype) for name, dtype in _arithmetic(device).items()}
    speeds = _beside_original({"train": step, **peaks}, config, figures, report)
    return _training_figures(config, speeds, figures)


def _beside_original(
    works: Works, config: RunConfig, figures: dict[str, Any], report: Callable[[str], None]
) -> dict[str, Speed]:
    """Measure works in turns with steps of the original project, if the model has its architecture
    and there is memory for a second training, which takes about as much as the first."""
    if unsupported_settings(config.model, "main"):
        return measure_in_turns(works)
    report("measuring train in turns with the step of the original project …")
    is_on_cpu = choose_device(config.train.device) == "cpu"  # where no error says that it lacks
    if not is_on_cpu or mib(psutil.virtual_memory().available) > figures["memory_mib"]:
        with suppress(torch.OutOfMemoryError):
            steps = _original_steps(config, figures["batch_size"])
            return measure_in_turns(works | {"original_train": steps})
    report("the step of the original project needs more memory than this device has")
    return measure_in_turns(works)


def _original_steps(config: RunConfig, size: int) -> Callable[[], int]:
    """Work that trains one step as the original project does."""
    device = choose_device(config.train.device)
    training = OriginalTraining(Denoiser(config.model), config.train, device)
    batch, choices = _step_inputs(config, size, device)

    def step() -> int:
        training.step(batch, choices)
        return size

    return step


def _step_inputs(config: RunConfig, count: int, device: str) -> tuple[Batch, StepRandomness]:
    """A random batch of pairs and the random choices of a step, on the device."""
    batch = random_batch(config, count)
    choices = step_randomness(config.train, config.model, count, step=0)
    return Batch(batch.latents.to(device), batch.text.to(device)), choices.on(device)


def _memory_since(before: Memory, device: str) -> dict[str, int]:
    """Peak of the memory in use, in MiB."""
    used = {"memory_mib": mib(memory().peak - before.own - before.mapped)}
    if device.startswith("cuda"):
        used["device_memory_mib"] = mib(torch.cuda.max_memory_allocated(device))
    return used


def _training_figures(
    config: RunConfig, speeds: dict[str, Speed], figures: dict[str, Any]
) -> Measurement:
    """The measurement of training, with further figures."""
    peaks = {name: speeds[name].fastest for name in ("fp32", "bf16") if name in speeds}
    used = "bf16" if "bf16" in peaks and config.train.precision != "fp32" else "fp32"
    operations = 3 * forward_operations(config)  # the backward pass takes twice as many
    train = speeds["train"]
    figures = figures | {
        "gflop_per_image": round(operations / 1e9, 2),
        "peak_gflop_per_s": {name: round(peak / 1e9) for name, peak in peaks.items()},
        "arithmetic": used,
        "flop_utilisation": round(train.median * operations / speeds[used].median, 3),
    }
    if original := speeds.get("original_train"):
        figures["times_original"] = train.relative_to(original).summary()
    steps = {name: speed for name, speed in speeds.items() if name.endswith("train")}
    return Measurement(steps, {"train": figures})


def forward_operations(config: RunConfig) -> int:
    """Floating-point operations of the forward pass for one image, as torch counts them: all matrix
    products, including attention, and convolutions, two per multiply-add. Element-wise operations
    are not counted."""
    batch = random_batch(config, 1)
    # With the plain attention kernel, because fused ones are not counted.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        Denoiser(config.model)(batch.latents, torch.full((1,), 0.5), batch.text)
    return int(counter.get_total_flops())


def _arithmetic(device: str) -> dict[str, torch.dtype]:
    """The floating-point formats that the device computes with."""
    return {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_bf16(device) else {})


def measure_denoising(config: RunConfig) -> Measurement:
    """The denoiser's part of sampling: all steps, with guidance."""
    device = use_device(config.evaluate.device)
    inference = inference_on(device, config.evaluate.precision)
    denoiser = inference.denoiser(Denoiser(config.model).to(device).eval())
    denoise = guided(denoiser, config.evaluate.guidance, config.evaluate.guidance_interval)
    levels = noise_levels(config.evaluate.steps)

    def sampling_of(count: int) -> Callable[[], int]:
        batch = random_batch(config, count)
        noise, text = batch.latents.to(device), batch.text.to(device)
        solver = config.evaluate.solver
        return lambda: len(inference.sample(solver, denoise, noise, text, levels).cpu())

    size = largest_batch(sampling_of, config.evaluate.batch_size)
    return Measurement({"denoise": measure(sampling_of(size))}, {"denoise": {"batch_size": size}})


def measure_decoding(config: RunConfig) -> Measurement:
    """The decoder's part of sampling."""
    codec = load_image_codec(config.encode.vae, use_device(config.evaluate.device))
    size = largest_batch(lambda count: _decoding(config, codec, count), config.evaluate.batch_size)
    return Measurement(
        {"decode": measure(_decoding(config, codec, size))},
        {"decode": {"batch_size": size}},
    )


def _decoding(config: RunConfig, codec: ImageCodec, count: int) -> Callable[[], int]:
    """Work that decodes this many random latents."""
    latents = random_batch(config, count).latents
    decode = core_threads(str(codec.vae.device)).by_rows(codec.decode)
    return lambda: len(decode(latents).cpu())


def random_batch(config: RunConfig, count: int) -> Batch:
    """Random pairs in the shapes of the model. Token-level text has the length of the longest
    caption, to which training pads it too."""
    model = config.model
    latents = torch.randn(count, model.latent_channels, model.latent_size, model.latent_size)
    text_shape = (
        (count, model.text_dim)
        if model.text == "pooled"
        else (count, LONGEST_CAPTION, model.text_dim)
    )
    return Batch(latents, torch.randn(text_shape))
