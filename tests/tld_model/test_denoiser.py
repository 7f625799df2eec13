from pathlib import Path

import pytest
import torch

from tld_model.checkpoint import CheckpointError, load_denoiser, save_denoiser
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser

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
