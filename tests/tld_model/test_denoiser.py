from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tld_model.checkpoint import CheckpointError, load_denoiser, save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.layers import attend

SMALL = DenoiserConfig(latent_size=8, text_dim=16, width=64, layers=2, noise_embed_dim=32)


def test_the_default_architecture_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        denoiser = Denoiser(DenoiserConfig())
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 101_164_352


def test_a_prediction_has_the_shape_of_its_input_and_feels_every_input() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(SMALL)
    noisy, sigma, text = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 16)
    out = denoiser(noisy, sigma, text)
    assert out.shape == noisy.shape
    for changed in ((noisy + 1, sigma, text), (noisy, sigma - 0.1, text), (noisy, sigma, text + 1)):
        assert not torch.allclose(denoiser(*changed), out)


def test_a_denoiser_comes_back_from_disk_as_it_went(tmp_path: Path) -> None:
    denoiser = Denoiser(SMALL).eval()
    save_denoiser(tmp_path / "d.safetensors", denoiser.state_dict(), SMALL)
    loaded = load_denoiser(tmp_path / "d.safetensors", "cpu")
    assert loaded.config == SMALL
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([0.5]), torch.randn(1, 16)
    assert torch.equal(loaded(*inputs), denoiser(*inputs))


def test_a_file_that_is_no_denoiser_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"d\.safetensors is not a readable safetensors file"):
        load_denoiser(path, "cpu")


def test_a_denoiser_of_velocities_gives_the_clean_latent_all_the_same() -> None:
    torch.manual_seed(0)
    of_x0, of_v = Denoiser(SMALL), Denoiser(SMALL.model_copy(update={"predicts": "v"}))
    of_v.load_state_dict(of_x0.state_dict())
    noisy, sigma, text = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 16)
    raw = of_x0(noisy, sigma, text)
    torch.testing.assert_close(of_v(noisy, sigma, text), noisy - sigma.view(2, 1, 1, 1) * raw)


@pytest.mark.parametrize("blocks", ["original", "joint"])
def test_with_qk_norm_the_size_of_queries_and_keys_does_not_matter(blocks: str) -> None:
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 16)

    def change(qk_norm: bool) -> float:
        """How much the prediction changes when queries and keys of all attentions become ten times
        as large."""
        torch.manual_seed(0)
        denoiser = Denoiser(SMALL.model_copy(update={"qk_norm": qk_norm, "blocks": blocks}))
        before = denoiser(*inputs)
        with torch.no_grad():
            for name, weight in denoiser.named_parameters():
                if name.endswith("qkv.weight"):
                    weight[: 2 * SMALL.width].mul_(10)
                elif name.endswith("cross_attention.q.weight"):
                    weight.mul_(10)
                elif name.endswith("kv.weight"):
                    weight[: SMALL.width].mul_(10)
        return float((denoiser(*inputs) - before).detach().abs().max())

    assert change(qk_norm=True) < 1e-3 < 1e-2 < change(qk_norm=False)


def test_qk_norm_keeps_to_half_precision_where_that_is_used() -> None:
    denoiser = Denoiser(SMALL.model_copy(update={"qk_norm": True}))
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = denoiser(*inputs)
    torch.testing.assert_close(out.float(), denoiser(*inputs), rtol=0.1, atol=0.05)


def test_without_learned_positions_the_convolutions_tell_the_places() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(SMALL.model_copy(update={"positions": "none"}))
    assert "position" not in denoiser.state_dict()
    sigma, text = torch.tensor([0.5]), torch.randn(1, 16)
    for size in (8, 12):
        out = denoiser(torch.ones(1, 4, size, size), sigma, text)
        assert out.shape == (1, 4, size, size)
        assert not torch.allclose(out[..., 0, 0], out[..., 4, 4])


def test_attention_in_training_gives_the_numbers_and_gradients_of_torchs_own() -> None:
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, length, 64).requires_grad_() for length in (16, 5, 5)]  # q, k, v
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    q, k, v = exact
    fused, written_out = F.scaled_dot_product_attention(q, k, v), attend(*half)
    assert "ScaledDot" not in str(written_out.grad_fn)
    torch.testing.assert_close(written_out.float(), fused, rtol=0.02, atol=0.02)
    for out in (written_out, fused):
        out.sum().backward()
    for a, b in zip(half, exact, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=0.05, atol=0.05)
    with torch.no_grad():
        torch.testing.assert_close(attend(*half), written_out, rtol=0.02, atol=0.02)


BY_TOKEN = SMALL.model_copy(update={"text": "tokens"})


def test_padding_of_token_level_text_changes_nothing_wherever_it_stands() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(BY_TOKEN).eval()
    noisy, sigma, text = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 5, 16)
    text[1, 3:] = 0
    alone = denoiser(noisy, sigma, text)
    torch.testing.assert_close(denoiser(noisy[1:], sigma[1:], text[1:, :3]), alone[1:])
    padded = torch.cat([text, torch.zeros(2, 4, 16)], dim=1)
    torch.testing.assert_close(denoiser(noisy, sigma, padded), alone)
    torch.testing.assert_close(denoiser(noisy, sigma, padded[:, torch.randperm(9)]), alone)
    assert not torch.allclose(denoiser(noisy, sigma, text + 0.1), alone)
    absent = denoiser(noisy, sigma, torch.zeros_like(text))
    assert absent.isfinite().all()
    torch.testing.assert_close(
        denoiser(noisy, sigma, text[:, :0]), absent, msg="no condition: the noise level alone"
    )


def test_gradients_reach_no_padding_and_all_else() -> None:
    torch.manual_seed(0)
    denoiser, text = Denoiser(BY_TOKEN), torch.randn(2, 5, 16)
    text[1, 3:] = 0
    text.requires_grad_()
    denoiser(torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), text).square().sum().backward()
    assert text.grad is not None
    assert torch.equal(text.grad.any(dim=2), text.detach().any(dim=2))
    assert all(parameter.grad is not None for parameter in denoiser.parameters())


def test_both_forms_of_text_have_the_same_weights() -> None:
    assert {name: w.shape for name, w in Denoiser(BY_TOKEN).state_dict().items()} == {
        name: w.shape for name, w in Denoiser(SMALL).state_dict().items()
    }


def test_latents_need_not_be_square() -> None:
    """A wide latent is a high one lying on its side, for a model that lies on its side too."""
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"patch_size": 1})
    upright, lying = Denoiser(config), Denoiser(config)
    weights = {
        name: weight.transpose(2, 3) if "depthwise.weight" in name else weight
        for name, weight in upright.state_dict().items()
    }
    weights["position"] = weights["position"].unflatten(0, (8, 8)).transpose(0, 1).flatten(0, 1)
    lying.load_state_dict(weights)
    noisy, sigma, text = torch.randn(2, 4, 12, 6), torch.tensor([0.2, 0.9]), torch.randn(2, 16)
    out = upright(noisy, sigma, text)
    assert out.shape == noisy.shape
    torch.testing.assert_close(lying(noisy.transpose(2, 3), sigma, text), out.transpose(2, 3))
    wide = Denoiser(SMALL)
    assert wide(torch.randn(2, 4, 8, 20), sigma, text).shape == (2, 4, 8, 20), "patches of 2"
