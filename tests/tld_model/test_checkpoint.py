import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tld_model.checkpoint import (
    CheckpointError,
    check_encoders,
    load_denoiser,
    read_sampling,
    save_denoiser,
)
from tld_model.config import DenoiserConfig, SamplingSettings
from tld_model.denoiser import Denoiser
from tld_model.encoders.names import SHIPPED_ENCODERS, encoder_identity

SMALL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
ENCODERS = {
    "vae": "shapes-vae",
    "clip": "shapes-clip",
    "vae_identity": encoder_identity("shapes-vae"),
    "clip_identity": encoder_identity("shapes-clip"),
}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "d.safetensors"
    save_denoiser(path, Denoiser(SMALL).state_dict(), SMALL, ENCODERS)
    return path


def test_a_model_of_one_vae_is_refused_with_another_and_both_are_named(trained: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"by VAE 'shapes-vae', but these are by 'madebyollin/taesd'"
    ):
        check_encoders(trained, "madebyollin/taesd", "shapes-clip")
    with pytest.raises(
        CheckpointError, match=r"by CLIP 'shapes-clip', but these are by 'openai/clip'"
    ):
        check_encoders(trained, "shapes-vae", "openai/clip")


def test_the_content_of_an_encoder_counts_not_where_it_lies(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "vae"
    shutil.copytree(SHIPPED_ENCODERS["shapes-vae"], copy)
    check_encoders(trained, str(copy), "shapes-clip")
    (copy / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not fit these encoders"):
        check_encoders(trained, str(copy), "shapes-clip")


def test_a_file_that_does_not_say_its_encoders_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "imported.safetensors"
    save_denoiser(path, Denoiser(SMALL).state_dict(), SMALL)
    check_encoders(path, "any/vae", "any/clip")
    assert load_denoiser(path, "cpu").config == SMALL


@pytest.mark.slow
def test_equal_models_give_equal_bytes_whichever_process_writes_them(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from tld_model.checkpoint import save_denoiser; from tld_model.config import "
        "DenoiserConfig\n"
        "names = {'vae': 'a', 'clip': 'b', 'vae_identity': 'c', 'clip_identity': 'd'}\n"
        "weights = {str(i): torch.arange(i + 1.0) for i in range(9)}\n"
        "save_denoiser(Path(sys.argv[1]), weights, DenoiserConfig(), names)\n"
    )
    for number in range(4):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / str(number))], check=True)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(4)}) == 1


def test_a_distilled_model_says_how_it_samples(trained: Path, tmp_path: Path) -> None:
    path, sampling = tmp_path / "distilled.safetensors", SamplingSettings(4, 1.0, "euler")
    weights = load_denoiser(trained, "cpu").state_dict()
    save_denoiser(path, weights, SMALL, ENCODERS, sampling=sampling)
    assert read_sampling(path) == sampling
    assert read_sampling(trained) is None
    assert b"sampling" not in trained.read_bytes(), "as before distilled models existed"


@pytest.mark.parametrize("steps", [0, 10**9, "many"])
def test_absurd_sampling_in_a_file_is_refused(trained: Path, tmp_path: Path, steps: object) -> None:
    path = tmp_path / "distilled.safetensors"
    weights = load_denoiser(trained, "cpu").state_dict()
    save_denoiser(path, weights, SMALL, sampling=SamplingSettings(steps, 1.0, "euler"))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"sampling\.steps"):
        read_sampling(path)
