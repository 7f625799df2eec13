"""Blocks that are computed again in the backward pass: the same weights from less memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from pipeline.compute.core_threads import ONE_THREAD, CoreThreads
from pipeline.compute.ranks import Ranks, full_tensor
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loop import TrainState, initial_state, train_step
from pipeline.train.loss import per_pair_loss, step_randomness
from pipeline.train.sharding import distribute, shard
from tests.support.training import MODEL, SETTINGS
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

DEEP = MODEL.model_copy(update={"layers": 4})
JOINT = DEEP.model_copy(update={"blocks": "joint"})


@dataclass(frozen=True, slots=True)
class Case:
    """A training that must not change."""

    train: dict[str, Any]
    model: dict[str, Any]
    threads: CoreThreads = ONE_THREAD


CASES = {
    "plain": Case({}, {}),
    "accumulate": Case({"accumulate": 2}, {}),
    "threads": Case({}, {}, CoreThreads(2)),
    "bf16": Case({"precision": "bf16"}, {}),
    "bf16 in threads": Case({"precision": "bf16", "accumulate": 2}, {}, CoreThreads(2)),
    "inpainting": Case({"contrastive": 0.05}, {"inpainting": True, "predicts": "v"}),
    "tokens": Case({"optimizer": "muon"}, {"text": "tokens", "qk_norm": True}),
    "joint": Case({"optimizer": "muon", "accumulate": 2}, {"text": "tokens", "blocks": "joint"}),
    "joint in bf16": Case({"precision": "bf16"}, {"blocks": "joint", "qk_norm": True}),
}


def settings(checkpoint_blocks: bool, **more: Any) -> TrainConfig:
    return TrainConfig(**SETTINGS | more | {"checkpoint_blocks": checkpoint_blocks})


def random_batch(model: DenoiserConfig) -> Batch:
    generator = torch.Generator().manual_seed(0)
    text = (8, 5, 8) if model.text == "tokens" else (8, 8)
    return Batch(
        torch.randn(8, 4, 4, 4, generator=generator), torch.randn(text, generator=generator)
    )


def trained(state: TrainState, config: TrainConfig) -> list[Tensor]:
    """The weights, their averages and the gradients after three steps."""
    model = state.denoiser.config
    for step in range(3):
        train_step(state, random_batch(model), step_randomness(config, model, 8, step), config)
    weights = [*state.denoiser.parameters(), *state.ema.parameters()]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return [full_tensor(tensor.detach()) for tensor in (*weights, *gradients)]


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_the_same_to_the_bit(name: str) -> None:
    case = CASES[name]
    model = DenoiserConfig(**DEEP.model_dump() | case.model)
    plain, recomputed = (
        trained(initial_state(config, model, "cpu", case.threads), config)
        for config in (settings(on, **case.train) for on in (False, True))
    )
    assert all(map(torch.equal, recomputed, plain))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
@pytest.mark.parametrize("model", [DEEP, JOINT], ids=["original", "joint"])
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_so_they_are_under_ddp_and_fsdp(
    sharding: str, model: DenoiserConfig, tmp_path: Path
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    ends = []
    for on in (False, True):
        config = settings(on, accumulate=2)
        state = initial_state(config, model, "cpu")
        if sharding == "fsdp":
            shard(state, config, init_device_mesh("cpu", (1,)))
        else:
            distribute(state, config, Ranks(0, 2), "cpu")  # one that is alone is not wrapped
        ends.append(trained(state, config))
    dist.destroy_process_group()
    assert all(map(torch.equal, *ends))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
@pytest.mark.parametrize("model", [DEEP, JOINT], ids=["original", "joint"])
def test_compiled_blocks_are_computed_again_too(model: DenoiserConfig) -> None:
    ends, kept = [], []
    for on in (False, True):
        config = settings(on)
        state = initial_state(config, model, "cpu")
        state.denoiser.compile_blocks()
        kept.append(kept_elements(state, config))
        ends.append(trained(state, config))
    assert kept[1] < kept[0] / 2
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)


def kept_elements(state: TrainState, config: TrainConfig) -> int:
    """The numbers that a forward pass keeps for the backward pass, beside the weights."""
    model = state.denoiser.config
    weights = {weight.data_ptr() for weight in state.denoiser.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor  # which no other tensor can follow while it lives
        return tensor

    choices = step_randomness(config, model, 8, step=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        per_pair_loss(state.denoiser, model, random_batch(model), choices, config)
    return sum(tensor.numel() for pointer, tensor in kept.items() if pointer not in weights)


@pytest.mark.parametrize("model", [DEEP, JOINT], ids=["original", "joint"])
def test_of_each_further_block_only_the_input_is_kept(model: DenoiserConfig) -> None:
    kept = {
        (on, layers): kept_elements(
            initial_state(
                config := settings(on), model.model_copy(update={"layers": layers}), "cpu"
            ),
            config,
        )
        for on in (False, True)
        for layers in (4, 8)
    }
    tokens = 8 * DEEP.tokens * DEEP.width
    assert kept[True, 8] - kept[True, 4] == 4 * tokens
    assert kept[False, 8] - kept[False, 4] > 10 * 4 * tokens


def test_the_averages_and_what_computes_no_gradients_are_as_ever() -> None:
    state = initial_state(settings(checkpoint_blocks=True), DEEP, "cpu")
    assert state.denoiser.recomputes_blocks
    assert not state.ema.recomputes_blocks
    plain = Denoiser(DEEP)
    plain.load_state_dict(state.denoiser.state_dict())
    batch = random_batch(DEEP)
    with torch.no_grad():
        outputs = [
            network(batch.latents, torch.full((8,), 0.5), batch.text)
            for network in (state.denoiser, plain)
        ]
    assert torch.equal(*outputs)
    assert not outputs[0].requires_grad
