"""`tld export` as a user runs it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from flows.cli.export import export
from flows.terminal.errors import UserError
from pipeline.config.load import load_config
from tests.support.command import tld
from tests.support.small import TINY
from tests.support.workspace import make_workspace, overrides
from tld_model.checkpoint import save_denoiser
from tld_model.denoiser import Denoiser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export") / "data"
    make_workspace(root)
    return root


def test_a_run_is_exported_with_its_card(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    done = tld("export", TINY, *overrides(root), "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"DiffusionPipeline.from_pretrained('{out}', trust_remote_code=True)" in done.stdout
    assert (out / "transformer" / "diffusion_pytorch_model.safetensors").is_file()
    card = ModelCard.load(out / "README.md")
    assert card.data.to_dict()["library_name"] == "diffusers"
    assert "`run-of-train`" in card.text
    assert str(root) not in card.text


def test_an_imported_model_keeps_its_scale_of_latents(tmp_path: Path) -> None:
    config = load_config(TINY).model
    (tmp_path / "imported").mkdir()
    torch.manual_seed(0)
    save_denoiser(
        tmp_path / "imported" / "denoiser.safetensors",
        Denoiser(config).state_dict(),
        config,
        latent_scaling=0.125,
    )
    export(TINY, out=tmp_path / "out", model=str(tmp_path / "imported"))
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["encodings"]["latents"] == {"scale": 0.125, "shift": 0.0}
    card = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "# imported" in card
    assert "This model was not evaluated here." in card


def test_what_cannot_be_exported_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model has been trained with these settings"):
        export(TINY, f"root={tmp_path}", out=tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"--out: .*thesis\.tex"):
        export(TINY, *overrides(root), out=tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
