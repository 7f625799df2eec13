import pytest
import torch

from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser, resize_positions
from tld_model.weight_transfer import incompatible_settings, transfer_weights

BASE = DenoiserConfig(latent_size=8, text_dim=16, width=64, layers=1, noise_embed_dim=32)


def inputs(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, size, size), torch.tensor([0.2, 0.9]), torch.randn(2, 16)


def test_weights_carried_over_give_the_same_predictions() -> None:
    base, denoiser = Denoiser(BASE), Denoiser(BASE)
    transfer_weights(base, denoiser)
    arguments = inputs(8)
    assert torch.equal(base(*arguments), denoiser(*arguments))


def test_positions_are_interpolated_to_larger_latents() -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    positions = torch.stack([rows, columns, torch.full_like(rows, 3)], dim=-1).flatten(
        0, 1
    )  # [64, 3]
    larger = resize_positions(positions, 16, 16).unflatten(0, (16, 16))

    place = (
        torch.arange(16) + 0.5
    ) / 2 - 0.5  # of the new in the old, whose outermost have no neighbours
    middle = slice(4, 12)
    torch.testing.assert_close(larger[middle, 7, 0], place[middle], rtol=0, atol=0.1)
    torch.testing.assert_close(larger[7, middle, 1], place[middle], rtol=0, atol=0.1)
    torch.testing.assert_close(larger[..., 2], torch.full((16, 16), 3.0))
    assert torch.equal(resize_positions(positions, 8, 8), positions)


def test_a_denoiser_starts_from_one_of_smaller_pictures() -> None:
    base, denoiser = Denoiser(BASE), Denoiser(BASE.model_copy(update={"latent_size": 16}))
    transfer_weights(base, denoiser)
    assert denoiser(*inputs(16)).shape == (2, 4, 16, 16)
    carried, weights = denoiser.state_dict(), base.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], carried[name])] == [
        "position"
    ]


@pytest.mark.parametrize("size", [8, 16])
def test_a_base_without_learned_positions_fits_any_size(size: int) -> None:
    config = BASE.model_copy(update={"positions": "none"})
    base, denoiser = Denoiser(config), Denoiser(config.model_copy(update={"latent_size": size}))
    transfer_weights(base, denoiser)
    arguments = inputs(size)
    assert torch.equal(base(*arguments), denoiser(*arguments))


def test_what_does_not_fit_is_named_in_full() -> None:
    other = {
        "width": 128,
        "layers": 2,
        "predicts": "v",
        "blocks": "joint",
        "qk_norm": True,
        "positions": "none",
        "latent_size": 16,
    }
    expected = {"width", "layers", "predicts", "blocks", "qk_norm", "positions"}
    assert set(incompatible_settings(BASE, BASE.model_copy(update=other))) == expected
    inpainting = BASE.model_copy(update={"inpainting": True})
    assert incompatible_settings(BASE, inpainting) == []
    assert incompatible_settings(inpainting, BASE) == ["inpainting"]
