import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tld_model.checkpoint import CheckpointError, load_denoiser, save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.sampler import guided, noise_levels, sample_dpmpp_2m

PUBLISHED = Path(__file__).parents[3] / "shared/fixtures/published_checkpoints"
SMALL = DenoiserConfig(latent_size=8, text_dim=16, width=64, layers=2, noise_embed_dim=32)


def test_the_default_architecture_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        denoiser = Denoiser(DenoiserConfig())
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 101_164_352


def published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published project's names -> ours."""
    ours: dict[str, Tensor] = {}
    names = {
        "fourier_feats.0": "noise_embedding",
        "fourier_feats.1": "noise_embedding.expand",
        "fourier_feats.3": "noise_embedding.contract",
        "label_proj": "text_projection",
        "norm": "condition_norm",
        "denoiser_trans_block.patchify_and_embed.0": "patchify",
        "denoiser_trans_block.patchify_and_embed.2": "embed.0",
        "denoiser_trans_block.patchify_and_embed.3": "embed.1",
        "denoiser_trans_block.patchify_and_embed.4": "embed.2",
        "denoiser_trans_block.out_proj.0": "head",
    }
    parts = {
        "self_attention.qkv_linear": "self_attention.qkv",
        "cross_attention.kv_linear": "cross_attention.kv",
        "cross_attention.q_linear": "cross_attention.q",
        "mlp.mlp.0": "feed_forward.expand",
        "mlp.mlp.1": "feed_forward.depthwise",
        "mlp.mlp.3": "feed_forward.contract",
    }
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module in names:
            ours[f"{names[module]}.{leaf}"] = tensor
        elif name == "denoiser_trans_block.pos_embed.weight":
            ours["position"] = tensor
        elif "decoder_blocks" in name:
            _, _, number, part = module.split(".", 3)
            linear = part in ("mlp.mlp.0", "mlp.mlp.3") and leaf == "weight"
            ours[f"blocks.{number}.{parts.get(part, part)}.{leaf}"] = tensor.flatten(1) if linear else tensor
    return ours


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published checkpoints are not beside this checkout")
def test_published_weights_give_the_published_numbers() -> None:
    told: dict[str, Any] = json.loads((PUBLISHED / "main.json").read_text())
    config = DenoiserConfig(
        latent_size=told["image_size"],
        text_dim=told["text_emb_size"],
        width=told["embed_dim"],
        layers=told["n_layers"],
        noise_embed_dim=told["noise_embed_dims"],
    )
    denoiser = Denoiser(config).eval()
    denoiser.load_state_dict(published(torch.load(PUBLISHED / "main.pth", weights_only=True)))
    arrays = {name: torch.from_numpy(array) for name, array in np.load(PUBLISHED / "main.npz").items()}

    with torch.no_grad():
        output = denoiser(arrays["x"], arrays["noise_level"].flatten(), arrays["text"])
    torch.testing.assert_close(output, arrays["output"], rtol=1e-5, atol=1e-5)
    denoise = guided(denoiser, told["class_guidance"])
    sample = sample_dpmpp_2m(denoise, arrays["init_noise"], arrays["text_sample"], noise_levels(told["n_iter"]))
    torch.testing.assert_close(sample, arrays["sample_dpmpp2m"], rtol=1e-4, atol=1e-4)


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
    torch.testing.assert_close(denoiser(noisy, sigma, text[:, :0]), absent, msg="no condition: the noise level alone")


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
