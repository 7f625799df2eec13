from functools import partial
from typing import get_args

import pytest
import torch
from torch.nn import functional as F

from tld_model.config import DenoiserConfig, SolverName
from tld_model.denoiser import Denoiser
from tld_model.diffusion import add_noise
from tld_model.inpainting import (
    keep_known_region,
    known_part,
    latent_mask,
    sample_masks,
    with_known,
)
from tld_model.sampler import guided, noise_levels, sample
from tld_model.weight_transfer import transfer_weights

BASE = DenoiserConfig(latent_size=8, text_dim=16, width=64, layers=1, noise_embed_dim=32)
VARIANT = BASE.model_copy(update={"inpainting": True})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def variant_of(base: Denoiser) -> Denoiser:
    variant = Denoiser(VARIANT)
    transfer_weights(base, variant)
    return variant


def test_a_fresh_variant_gives_exactly_the_predictions_of_its_base() -> None:
    base = Denoiser(BASE)
    variant = variant_of(base)
    inputs = torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.6, 0.9]), torch.randn(3, 16)
    known = known_part(torch.randn(3, 4, 8, 8), sample_masks(3, 8, seeded(1)))
    assert known.shape == (3, 5, 8, 8)
    assert torch.equal(variant(*inputs, known), base(*inputs))
    assert torch.equal(variant(*inputs), base(*inputs)), (
        "with no picture at all it is a text-to-image model"
    )


def test_after_brief_training_it_uses_the_known_part() -> None:
    torch.manual_seed(0)
    variant = variant_of(Denoiser(BASE))
    optimizer = torch.optim.AdamW(variant.parameters(), lr=2e-3)
    draw, mask_rng = partial(torch.randn, generator=seeded(2)), seeded(3)
    text, sigma = (
        torch.zeros(32, 16),
        torch.full((32,), 0.95),
    )  # nearly all noise: the latent is told by nothing else
    for _ in range(120):
        clean, noise = draw(32, 4, 8, 8), draw(32, 4, 8, 8)
        known = known_part(clean, sample_masks(32, 8, mask_rng))
        loss = F.mse_loss(variant(add_noise(clean, noise, sigma), sigma, text, known), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    clean, noise = draw(32, 4, 8, 8), draw(32, 4, 8, 8)
    mask = torch.zeros(32, 1, 8, 8)
    mask[..., :4] = 1
    noisy = add_noise(clean, noise, sigma)
    with torch.no_grad():
        informed = (
            (variant(noisy, sigma, text, known_part(clean, mask)) - clean)
            .square()
            .mean(dim=(0, 1, 2))
        )
        uninformed = (variant(noisy, sigma, text) - clean).square().mean(dim=(0, 1, 2))
    assert informed[:4].mean() < 0.6 * uninformed[:4].mean(), "the known half is copied"
    assert informed[4:].mean() > 0.8 * uninformed[4:].mean(), "the other half cannot be known"


def test_masks_are_holes_borders_and_nothing_and_follow_from_the_seed() -> None:
    masks = sample_masks(4000, 16, seeded())
    assert masks.shape == (4000, 1, 16, 16)
    assert torch.equal(masks, sample_masks(4000, 16, seeded()))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    known = masks[:, 0].bool()

    def one_rectangle(places: torch.Tensor) -> torch.Tensor:
        """Whether true places of each are all of a rectangle's: as many as rows times columns that
        hold some."""
        return places.any(2).sum(1) * places.any(1).sum(1) == places.sum(dim=(1, 2))

    nothing = ~known.flatten(1).any(1)
    middle = one_rectangle(known) & ~nothing
    hole = one_rectangle(~known) & ~middle & ~nothing
    assert (nothing | middle | hole).all()
    for kind, least, most in ((nothing, 0.22, 0.29), (middle, 0.3, 0.45), (hole, 0.25, 0.4)):
        assert least < kind.float().mean().item() < most


def test_a_latent_is_known_where_none_of_its_pixels_is_painted() -> None:
    paint = torch.zeros(64, 64, dtype=torch.bool)
    paint[8:16, 23] = True
    mask = latent_mask(paint, 8)
    assert mask.shape == (1, 1, 8, 8)
    assert (1 - mask).nonzero().tolist() == [[0, 0, 1, 2]]


def test_guidance_and_the_solver_see_the_known_part_of_each_picture() -> None:
    torch.manual_seed(0)
    variant = variant_of(Denoiser(BASE)).eval()
    torch.nn.init.normal_(variant.patchify_known.weight)
    known = known_part(torch.randn(2, 4, 8, 8), sample_masks(2, 8, seeded(1)))
    noise, text = torch.randn(2, 4, 8, 8), torch.randn(2, 16)

    def painted(rows: slice) -> torch.Tensor:
        denoise = guided(with_known(variant, known[rows]), 3.0)
        return sample("dpmpp_2m", denoise, noise[rows], text[rows], noise_levels(3))

    both = painted(slice(0, 2))
    torch.testing.assert_close(
        both, torch.cat([painted(slice(0, 1)), painted(slice(1, 2))]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("solver", get_args(SolverName))
def test_holding_a_denoiser_is_noising_the_known_part_anew_at_each_level(
    solver: SolverName, guidance: float
) -> None:
    """As RePaint and blended diffusion do it, with one noise: x = (1 - s) x0 + s noise where x0 is
    known."""
    torch.manual_seed(0)
    denoiser, (clean, noise) = (
        Denoiser(BASE).eval(),
        torch.randn(2, 2, 4, 8, 8, dtype=torch.float64),
    )
    mask, text, levels = sample_masks(2, 8, seeded(2)), torch.randn(2, 16), noise_levels(5)
    known = mask.bool().expand_as(clean)
    assert known.any()
    assert not known.all()
    asked: list[float] = []

    def watched(noisy: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        s = float(sigma[0])
        asked.append(s)
        torch.testing.assert_close(
            noisy[:2][known], ((1 - s) * clean + s * noise)[known], rtol=0, atol=1e-6
        )
        predicted: torch.Tensor = denoiser(noisy.float(), sigma, text)
        return predicted.double()

    start = torch.where(known, (1 - levels[0]) * clean + levels[0] * noise, noise)
    painted = sample(
        solver, keep_known_region(guided(watched, guidance), clean, mask), start, text, levels
    )
    assert sorted({round(s, 5) for s in asked}, reverse=True) == [round(s, 5) for s in levels]
    assert torch.equal(painted[known], clean[known])
    assert (painted != clean)[~known].all()
