"""Each option of training does what it says: on random pairs, with the real step and real
checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline.compute.ranks import Ranks
from pipeline.config.load import load_config
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.checkpoints import resume
from pipeline.train.ema import ema_decay_at
from pipeline.train.loop import TrainState, TrainStep, initial_state, train_step
from pipeline.train.loss import caption_differs, per_pair_loss, step_randomness
from pipeline.train.optimizers import hidden_matrices
from pipeline.train.sharding import distribute
from tests.support.command import REPOSITORY
from tests.support.training import save_checkpoint
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

MODEL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
CONFIG: dict[str, Any] = {
    "steps": 8,
    "batch_size": 8,
    "warmup_steps": 0,
    "lr": 1e-3,
    "device": "cpu",
}


def config_with(**changed: Any) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG | {"precision": "fp32"} | changed)


def model_with(**changed: Any) -> DenoiserConfig:
    return MODEL.model_copy(update=changed)


def batch_of(seed: int, count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(count, 4, 4, 4, generator=generator), torch.randn(count, 8, generator=generator)
    )


def weights(denoiser: Denoiser) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in denoiser.parameters()])


def do_step(state: TrainState, batch: Batch, config: TrainConfig) -> TrainStep:
    choices = step_randomness(config, state.denoiser.config, len(batch.latents), state.step)
    return train_step(state, batch, choices, config)


def trained(state: TrainState, config: TrainConfig, upto: int) -> TrainState:
    while state.step < upto:
        do_step(state, batch_of(state.step), config)
    return state


def losses(config: TrainConfig, model: DenoiserConfig, batch: Batch) -> Tensor:
    denoiser = initial_state(config, model, "cpu").denoiser
    return per_pair_loss(
        denoiser, model, batch, step_randomness(config, model, len(batch.latents), 0), config
    ).detach()


ALL = {
    "adamw": (config_with(), MODEL),
    "muon": (config_with(optimizer="muon"), MODEL),
    "averages": (config_with(ema_decay=[0.5, 0.999]), MODEL),
    "joint": (config_with(optimizer="muon"), model_with(blocks="joint", qk_norm=True)),
    "v": (
        config_with(noise_levels="logit_normal", noise_shift=2),
        model_with(predicts="v", qk_norm=True),
    ),
    "contrastive": (config_with(contrastive=0.05, accumulate=2), model_with(positions="none")),
    "inpainting": (config_with(loss_weight="snr", max_loss_weight=5), model_with(inpainting=True)),
}


@pytest.mark.parametrize("name", ALL)
def test_whatever_the_options_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, name: str
) -> None:
    config, model = ALL[name]
    whole = trained(initial_state(config, model, "cpu"), config, 6)
    save_checkpoint(trained(initial_state(config, model, "cpu"), config, 3), tmp_path)
    torch.manual_seed(12345)  # the global generator must not matter
    second = initial_state(config, model, "cpu")
    resume(second, tmp_path, "cpu")
    assert second.step == 3
    trained(second, config, 6)

    assert torch.equal(weights(whole.denoiser), weights(second.denoiser))
    for one, other in zip(whole.averages, second.averages, strict=True):
        assert torch.equal(weights(one.denoiser), weights(other.denoiser))


def test_training_of_velocities_minimises_their_squared_error() -> None:
    config, model, batch = config_with(condition_dropout=0), model_with(predicts="v"), batch_of(1)
    denoiser = initial_state(config, model, "cpu").denoiser
    choices = step_randomness(config, model, 8, 0)
    s = choices.sigma[:, None, None, None]
    noisy = (1 - s) * batch.latents + s * choices.noise
    velocity = (noisy - denoiser(noisy, choices.sigma, batch.text)) / s
    expected = (velocity - (choices.noise - batch.latents)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        losses(config, model, batch), expected.detach(), rtol=1e-3, atol=1e-4
    )
    plain = losses(config_with(condition_dropout=0, max_loss_weight=1), model, batch)
    torch.testing.assert_close(
        plain, expected.detach() * choices.sigma.square(), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("contrastive", [0.0, 0.05])
@pytest.mark.parametrize(
    "model", [MODEL, model_with(inpainting=True)], ids=["text to image", "inpainting"]
)
def test_parts_of_a_batch_add_up_to_the_whole(contrastive: float, model: DenoiserConfig) -> None:
    ends = {}
    for accumulate in (1, 2, 4):
        config = config_with(accumulate=accumulate, contrastive=contrastive, max_loss_weight=4)
        state = initial_state(config, model, "cpu")
        step = do_step(state, batch_of(0), config)
        gradient = torch.cat(
            [p.grad.flatten() for p in state.denoiser.parameters() if p.grad is not None]
        )
        ends[accumulate] = step.loss, step.gradient_norm, gradient
    for accumulate in (2, 4):
        torch.testing.assert_close(ends[accumulate], ends[1], rtol=1e-4, atol=1e-6)


def test_ranks_average_their_gradients_once_a_step_whatever_its_parts(tmp_path: Path) -> None:
    averaged: list[int] = []

    def count(bucket: Any) -> torch.futures.Future[Tensor]:
        averaged.append(bucket.index())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        config = config_with(accumulate=4)
        state = initial_state(config, MODEL, "cpu")
        distribute(state, config, Ranks(0, 2), "cpu")
        assert isinstance(state.network, DistributedDataParallel)
        state.network.register_comm_hook(None, lambda _, bucket: count(bucket))
        do_step(state, batch_of(0), config)
    finally:
        dist.destroy_process_group()
    assert averaged
    assert len(averaged) == len(set(averaged)), "each bucket once"


def test_choices_are_those_of_the_whole_batch_whichever_part_asks() -> None:
    config, model = config_with(), model_with(inpainting=True)
    choices, again = (step_randomness(config, model, 8, 5) for _ in range(2))
    part = again.rows(slice(2, 6))
    assert torch.equal(part.noise, choices.noise[2:6])
    assert torch.equal(part.sigma, choices.sigma[2:6])
    assert choices.mask is not None
    assert part.mask is not None
    assert torch.equal(part.mask, choices.mask[2:6])
    assert not torch.equal(step_randomness(config, model, 8, 6).noise, choices.noise)


def test_contrast_takes_off_the_distance_to_another_captions_velocity() -> None:
    model, batch = model_with(predicts="v"), batch_of(1)
    batch.text[3] = batch.text[2]  # a pair of one caption
    plain, contrasted = (
        losses(config_with(condition_dropout=0, contrastive=c), model, batch) for c in (0, 0.5)
    )

    config = config_with(condition_dropout=0)
    denoiser, choices = (
        initial_state(config, model, "cpu").denoiser,
        step_randomness(config, model, 8, 0),
    )
    s = choices.sigma[:, None, None, None]
    noisy = (1 - s) * batch.latents + s * choices.noise
    velocity = (noisy - denoiser(noisy, choices.sigma, batch.text)) / s
    others = (choices.noise - batch.latents)[[1, 0, 3, 2, 5, 4, 7, 6]]
    distance = (velocity - others).square().mean(dim=(1, 2, 3)).detach()
    distance[2:4] = 0
    torch.testing.assert_close(plain - contrasted, 0.5 * distance, rtol=1e-3, atol=1e-3)


def test_pairs_of_one_caption_or_of_none_are_not_contrasted() -> None:
    text = torch.tensor([[1.0, 2], [1, 2], [1, 2], [1, 3], [0, 0], [1, 2]])
    assert caption_differs(text).tolist() == [0, 0, 1, 1, 0, 1]
    assert caption_differs(text[:, None].expand(-1, 3, -1)).tolist() == [0, 0, 1, 1, 0, 1]


ATTENTIONS = {
    "tld-100m": {
        "self_attention.qkv.weight",
        "cross_attention.q.weight",
        "cross_attention.kv.weight",
    },
    "modern-250m": {
        "attention.qkv.weight",
        "attention.condition_kv.weight",
        "attention.out.weight",
    },
}


@pytest.mark.parametrize(
    ("name", "parameters", "muons"),
    [("tld-100m", 101_164_352, 0.979), ("modern-250m", 252_814_656, 0.987)],
)
def test_nearly_all_weights_of_the_large_models_are_muons(
    name: str, parameters: int, muons: float
) -> None:
    with torch.device("meta"):
        denoiser = Denoiser(load_config(REPOSITORY / f"conf/{name}.yaml").model)
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == parameters
    matrices = {id(matrix) for matrix in hidden_matrices(denoiser)}
    names = {own for own, parameter in denoiser.named_parameters() if id(parameter) in matrices}
    assert {matrix.split(".", 2)[2] for matrix in names} == ATTENTIONS[name] | {
        "feed_forward.expand.weight",
        "feed_forward.contract.weight",
    }
    share = sum(denoiser.get_parameter(matrix).numel() for matrix in names) / parameters
    assert share == pytest.approx(muons, abs=0.001)


def test_muons_steps_are_orthogonal_and_as_large_as_adamws() -> None:
    config = config_with(optimizer="muon", weight_decay=0)
    state = initial_state(config, MODEL, "cpu")
    torch.manual_seed(0)
    before = {
        name: parameter.detach().clone() for name, parameter in state.denoiser.named_parameters()
    }
    for parameter in state.denoiser.parameters():
        parameter.grad = torch.randn_like(parameter)
    state.optimizer.step()
    steps = {name: p.detach() - before[name] for name, p in state.denoiser.named_parameters()}

    square, wide = "blocks.0.cross_attention.q.weight", "blocks.0.feed_forward.contract.weight"
    for name in (square, wide):
        assert steps[name].square().mean().sqrt().item() / config.lr == pytest.approx(
            0.2, abs=0.04
        ), "Liu et al., 2025"
        values = torch.linalg.svdvals(steps[name])
        assert values.quantile(0.1) > 0.5 * values.max(), "all directions move about alike"
    for name in (
        "position",
        "head.weight",
        "blocks.0.feed_forward.depthwise.weight",
        "blocks.0.norm1.bias",
    ):
        torch.testing.assert_close(
            steps[name].abs(), torch.full_like(steps[name], config.lr), rtol=1e-3, atol=0
        )
    numbers = [
        id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]
    ]
    assert sorted(numbers) == sorted(id(parameter) for parameter in state.denoiser.parameters())


def test_the_state_of_two_optimizers_is_laid_out_as_that_of_one() -> None:
    config = config_with(optimizer="muon")
    state = trained(initial_state(config, MODEL, "cpu"), config, 1)
    layout = state.optimizer.state_dict()
    parameters = [
        parameter for group in state.optimizer.param_groups for parameter in group["params"]
    ]
    assert sorted(layout["state"]) == list(range(len(parameters)))
    for number, memory in layout["state"].items():
        kind = "momentum_buffer" if "momentum_buffer" in memory else "exp_avg"
        assert memory[kind].shape == parameters[number].shape
    assert {"momentum_buffer" in memory for memory in layout["state"].values()} == {True, False}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_both_optimizers_learn(optimizer: str) -> None:
    config = config_with(optimizer=optimizer, steps=40, lr=3e-3, condition_dropout=0)
    state, batch = initial_state(config, MODEL, "cpu"), batch_of(0)
    losses = [do_step(state, batch, config).loss.item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_averages_of_two_lengths_follow_the_weights_at_their_own_pace() -> None:
    config = config_with(ema_decay=[0.5, 0.9], ema_warmup=False)
    state = initial_state(config, MODEL, "cpu")
    expected = [weights(state.denoiser), weights(state.denoiser)]
    for _ in range(4):
        do_step(state, batch_of(state.step), config)
        now = weights(state.denoiser)
        expected = [
            decay * old + (1 - decay) * now for decay, old in zip((0.5, 0.9), expected, strict=True)
        ]
    for average, value in zip(state.averages, expected, strict=True):
        torch.testing.assert_close(weights(average.denoiser), value)
    assert state.ema is state.averages[0].denoiser


def test_an_average_forgets_its_start_unless_it_has_no_warm_up() -> None:
    remembered = math.prod(ema_decay_at(0.999, step) for step in range(1, 1001))
    assert remembered < 1e-6
    for warmup, one_step in ((True, 2 / 11), (False, 0.999)):
        config = config_with(ema_decay=0.999, ema_warmup=warmup)
        state = initial_state(config, MODEL, "cpu")
        start = weights(state.denoiser)
        do_step(state, batch_of(0), config)
        torch.testing.assert_close(
            weights(state.ema), torch.lerp(weights(state.denoiser), start, one_step)
        )
