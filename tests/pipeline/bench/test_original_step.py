"""The step that ours is compared with: the same model, which learns as the original does."""

from __future__ import annotations

import pytest
import torch

from pipeline.bench.original_step import OriginalDenoiser, OriginalTraining
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import Batch
from pipeline.train.loss import step_randomness
from tld_model.checkpoint import CheckpointError
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.diffusion import add_noise, drop_condition
from tld_model.original_layouts import to_layout

MODEL = DenoiserConfig(
    latent_size=8, latent_channels=3, text_dim=24, width=128, layers=2, noise_embed_dim=16
)
CONFIG = TrainConfig(batch_size=6, precision="fp32", lr=1e-3)


def random_pairs(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(count, 3, 8, 8, generator=generator)
    return Batch(latents, torch.randn(count, 24, generator=generator))


def test_it_is_the_same_model_under_the_names_of_published_files() -> None:
    torch.manual_seed(0)
    ours, theirs = Denoiser(MODEL), OriginalDenoiser(MODEL)
    names = to_layout(ours.state_dict(), MODEL, "main")
    assert list(theirs.state_dict()) == list(names)
    counts = [sum(weight.numel() for weight in n.parameters()) for n in (ours, theirs)]
    assert counts[0] == counts[1]
    theirs.load_state_dict(names)
    pairs, sigma = random_pairs(6), torch.linspace(0.01, 1, 6)
    expected = ours(pairs.latents, sigma, pairs.text)
    torch.testing.assert_close(
        theirs(pairs.latents, sigma, pairs.text), expected, atol=1e-5, rtol=0
    )


def test_its_step_is_adam_on_the_squared_error_and_moves_the_average() -> None:
    torch.manual_seed(0)
    ours = Denoiser(MODEL)
    config = CONFIG.model_copy(update={"lr": 0.1})  # so that weight decay or a still average show
    training = OriginalTraining(ours, config, "cpu")
    pairs, choices = random_pairs(6), step_randomness(CONFIG, MODEL, 6, step=0)
    before = [weight.detach().clone() for weight in training.network.parameters()]
    loss = training.step(pairs, choices)

    noisy = add_noise(pairs.latents, choices.noise, choices.sigma)
    predicted = ours(noisy, choices.sigma, drop_condition(pairs.text, choices.dropped))
    error = (predicted - pairs.latents).square().mean()
    assert loss == pytest.approx(error.item(), rel=1e-5)
    error.backward()
    torch.optim.Adam(ours.parameters(), lr=config.lr).step()
    learned = training.network.state_dict()
    for name, weight in to_layout(ours.state_dict(), MODEL, "main").items():
        close = (weight - learned[name]).abs() < 1e-4
        # Where a gradient is near zero, rounding may turn Adam's first step, which is the rate.
        assert close.float().mean() > 0.99, name
    weights = zip(training.average.parameters(), before, training.network.parameters(), strict=True)
    for average, first, weight in weights:
        torch.testing.assert_close(average, 0.999 * first + 0.001 * weight)


def test_a_gradient_is_of_one_step() -> None:
    torch.manual_seed(0)
    training = OriginalTraining(Denoiser(MODEL), CONFIG, "cpu")
    pairs, choices = random_pairs(6), step_randomness(CONFIG, MODEL, 6, step=0)
    weights = [weight.detach().clone() for weight in training.network.parameters()]
    gradients = []
    for _ in range(2):  # from the same weights
        for weight, first in zip(training.network.parameters(), weights, strict=True):
            weight.data.copy_(first)
        training.step(pairs, choices)
        grads = [weight.grad for weight in training.network.parameters()]
        gradients.append([grad.clone() for grad in grads if grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_it_learns_to_repeat_a_batch() -> None:
    torch.manual_seed(0)
    training = OriginalTraining(Denoiser(MODEL), CONFIG, "cpu")
    pairs, choices = random_pairs(6), step_randomness(CONFIG, MODEL, 6, step=0)
    losses = [training.step(pairs, choices) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def test_another_architecture_is_refused() -> None:
    other = Denoiser(MODEL.model_copy(update={"qk_norm": True}))
    with pytest.raises(CheckpointError, match=r"model\.qk_norm"):
        OriginalTraining(other, CONFIG, "cpu")
