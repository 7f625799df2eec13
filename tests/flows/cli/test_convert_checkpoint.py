"""`tld import-checkpoint`, `tld export-checkpoint` and drawing with what they make, as a user runs
them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.generate.generator import load_generator
from tests.support.command import tld
from tests.support.small import TINY
from tld_model.config import DenoiserConfig
from tld_model.denoiser import Denoiser
from tld_model.original_checkpoint import export_published

pytestmark = pytest.mark.slow

FITS_TINY = DenoiserConfig(
    latent_size=8, text_dim=64, width=64, layers=1, noise_embed_dim=16, mlp_multiplier=1
)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    export_published(tmp_path / "original.pth", Denoiser(FITS_TINY).state_dict(), FITS_TINY, "main")
    return tmp_path / "original.pth"


def test_a_published_model_comes_in_draws_and_goes_back(original: Path, tmp_path: Path) -> None:
    imported, image, back = tmp_path / "imported", tmp_path / "star.png", tmp_path / "back.pth"
    encoders = ("--vae", "shapes-vae", "--clip", "shapes-clip")
    done = tld("import-checkpoint", original, "--layout", "main", "--out", imported, *encoders)
    assert done.returncode == 0, done.stderr
    assert "raw latents / 8" in done.stdout
    assert "1 layers of width 64" in done.stdout

    options = ("--count", "1", "--steps", "2", "--solver", "heun", "--out", image)
    done = tld("sample", TINY, "a star", f"root={tmp_path / 'none'}", "--model", imported, *options)
    assert done.returncode == 0, done.stderr
    assert image.stat().st_size > 0

    done = tld("export-checkpoint", imported, "--layout", "main", "--out", back)
    assert done.returncode == 0, done.stderr
    assert "scale_factor=8" in done.stdout
    before, after = (torch.load(path, weights_only=True) for path in (original, back))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    codec = load_generator(
        imported / "denoiser.safetensors", "shapes-vae", "shapes-clip", "cpu"
    ).codec
    assert (codec.scaling_factor, codec.shift) == (1 / 8, 0)


def test_what_cannot_be_imported_exported_or_drawn_with_is_told(
    original: Path, tmp_path: Path
) -> None:
    imported, damaged = tmp_path / "imported", tmp_path / "damaged.pth"
    damaged.write_bytes(original.read_bytes()[:4000])
    (tmp_path / "denoiser.safetensors").write_bytes(b"mine")
    for says, *arguments in (
        ("does not show its layout", "import-checkpoint", original, "--out", imported),
        (
            "is damaged, or holds more than tensors|is not a readable .pth",
            "import-checkpoint",
            damaged,
            "--out",
            imported,
        ),
        (
            "denoiser.safetensors exists",
            "import-checkpoint",
            original,
            "--layout",
            "main",
            "--out",
            tmp_path,
        ),
        (
            "--vae: './gone' is neither",
            "import-checkpoint",
            original,
            "--out",
            imported,
            "--vae",
            "./gone",
        ),
        (
            "original.pth exists",
            "export-checkpoint",
            imported,
            "--layout",
            "main",
            "--out",
            original,
        ),
        (
            "there is no file",
            "export-checkpoint",
            imported,
            "--layout",
            "main",
            "--out",
            tmp_path / "x.pth",
        ),
        ("tld import-checkpoint writes one", "sample", TINY, "a star", "--model", imported),
    ):
        done = tld(*map(str, arguments))
        assert done.returncode == 2, done.stderr
        assert any(part in done.stderr for part in says.split("|")), done.stderr
        assert "Traceback" not in done.stderr
    assert not imported.exists()
