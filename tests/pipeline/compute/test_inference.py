"""Inference: precision and threads change how a sample is computed, and no more than rounding."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from torch import Tensor

from pipeline.compute import inference as inference_module
from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.compute.inference import Inference
from tests.support.dataless import DEVICE, watched_copies
from tld_model.config import DenoiserConfig, Precision, SolverName
from tld_model.denoiser import Denoiser
from tld_model.sampler import guided, noise_levels

CONFIG = DenoiserConfig(latent_size=8, text_dim=16, width=64, layers=2, noise_embed_dim=64)


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(CONFIG).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model


def sampled(inference: Inference, model: Denoiser, rows: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(rows, 4, 8, 8, generator=generator)
    text = torch.randn(rows, 16, generator=generator)
    denoise = guided(inference.denoiser(model), 3.0)
    return inference.sample("dpmpp_2m", denoise, noise, text, noise_levels(6))


@pytest.fixture
def any_size_is_worth_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_module, "_LEAST_PRODUCTS", 1)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.usefixtures("any_size_is_worth_threads")
def test_threads_sample_what_one_thread_samples_up_to_rounding(rows: int) -> None:
    model = denoiser()
    alone = sampled(Inference("cpu", "fp32", ONE_THREAD), model, rows)
    shared = sampled(Inference("cpu", "fp32", CoreThreads(3)), model, rows)
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(shared, sampled(Inference("cpu", "fp32", CoreThreads(3)), model, rows))


@pytest.mark.parametrize("threads", [ONE_THREAD, CoreThreads(2)])
@pytest.mark.usefixtures("any_size_is_worth_threads")
def test_bf16_samples_nearly_the_same_and_predicts_float32(threads: CoreThreads) -> None:
    model, dtypes = denoiser(), set[torch.dtype]()
    inside: list[Tensor] = []
    model.noise_embedding.contract.register_forward_hook(lambda *call: inside.append(call[2]))
    model.head.register_forward_hook(lambda *call: dtypes.add(call[2].dtype))
    exact = sampled(Inference("cpu", "fp32", threads), model)
    assert dtypes == {torch.float32}
    inference = Inference("cpu", "bf16", threads)
    rounded = sampled(inference, model)
    assert dtypes == {torch.float32, torch.bfloat16}
    assert rounded.dtype == torch.float32
    difference = (rounded - exact).norm() / exact.norm()
    assert 0 < difference < 0.05
    # The phases of the noise level: in bf16 they would be off by whole turns.
    half = len(inside) // 2
    torch.testing.assert_close(inside[half].float(), inside[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_the_predictions_outside_a_sample_are_in_fp32(precision: Precision) -> None:
    model = denoiser()
    inputs = torch.randn(4, 4, 8, 8), torch.rand(4), torch.randn(4, 16)
    with torch.no_grad():
        predicted = Inference("cpu", precision, ONE_THREAD).denoiser(model)(*inputs)
        assert torch.equal(predicted, model(*inputs))


@pytest.mark.usefixtures("any_size_is_worth_threads")
def test_a_call_is_announced_once_however_many_threads_compute_it() -> None:
    calls: list[None] = []
    inference = dataclasses.replace(
        Inference("cpu", "fp32", CoreThreads(3)), before_call=lambda: calls.append(None)
    )
    sampled(inference, denoiser())
    assert len(calls) == 6


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.8)])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "euler"])
def test_the_host_never_waits_for_a_sample(
    solver: SolverName, interval: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = denoiser().to(DEVICE)
    noise, text = torch.randn(2, 4, 8, 8, device=DEVICE), torch.randn(2, 16, device=DEVICE)
    negative = torch.randn(1, 16, device=DEVICE)
    inference = Inference(DEVICE, "fp32", ONE_THREAD)
    with watched_copies(monkeypatch) as copies:
        denoise = guided(inference.denoiser(model), 3.0, interval, negative)
        latents = inference.sample(solver, denoise, noise, text, noise_levels(6))
    assert copies.places == []
    assert latents.device.type == DEVICE


def test_a_few_rows_of_a_small_model_are_computed_by_one_thread_on_one_core() -> None:
    places: set[tuple[int, int]] = set()

    def note(*_: object) -> None:
        places.add((threading.get_ident(), torch.get_num_threads()))

    model = denoiser()
    model.register_forward_pre_hook(note)
    threads = Inference("cpu", "fp32", CoreThreads(2))
    sampled(threads, model, rows=2)
    assert places == {(threading.get_ident(), 1)}
    places.clear()
    needed = 400_000_000 // (sum(map(Tensor.numel, model.parameters())) * CONFIG.tokens)
    sampled(threads, model, rows=needed // 2 + 1)
    assert threading.get_ident() not in {thread for thread, _ in places}
