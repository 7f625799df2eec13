"""`tld export` as a user runs it, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from flows.cli.export import export
from flows.terminal.errors import UserError
from pipeline.config.load import load_config
from tests.support.command import ENVIRONMENT, tld
from tests.support.hub import TOKEN, hub_server
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


# Loads the app of a Space and with it the model, both of which are on the hub.
RUN_APP = """
import runpy, sys
from huggingface_hub import hf_hub_download
path = hf_hub_download("lab/stars", "app.py", repo_type="space")
app = runpy.run_path(path, run_name="app")
app["generate"]("a star", "", 7, 2, 2.0)[0].save(sys.argv[1])
"""


def test_a_model_and_its_space_are_published(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as hub:
        for name, value in {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "TMPDIR": str(tmp_path),
        }.items():
            monkeypatch.setitem(ENVIRONMENT, name, value)
        names = ["--push", "me/stars", "--space", "lab/stars", "--license", "mit"]
        done = tld("export", TINY, *overrides(root), *names)
        assert done.returncode == 0, done.stderr
        assert f"model      {hub.url}/me/stars (private)\n" in done.stdout
        assert f"space      {hub.url}/spaces/lab/stars (private)\n" in done.stdout
        assert "from_pretrained('me/stars', trust_remote_code=True)" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        assert not list(tmp_path.glob("tld-*")), "the folder was a temporary one"

        card = ModelCard(hub.repositories["me/stars"].files["README.md"].decode())
        assert card.data.to_dict()["license"] == "mit"
        assert "The licence of the weights is `mit`." in card.text
        assert 'from_pretrained("me/stars", trust_remote_code=True)' in card.text
        out = tmp_path / "star.png"
        app = [sys.executable, "-I", "-c", RUN_APP, str(out)]
        ran = subprocess.run(app, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert out.is_file()

        hub.account["auth"]["accessToken"]["role"] = "read"
        asked = len(hub.asked)
        done = tld("export", TINY, *overrides(root), "--push", "you/stars")
        assert done.returncode == 2
        assert "you are me, and may write to me and lab alone" in done.stderr
        assert "your token may only read" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(hub.asked) == asked + 1


def test_one_file_samples_as_the_model_does(root: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "stars.safetensors", overrides(root)
    export(TINY, *run, to="safetensors", out=file)
    sources: dict[str, list[str | Path]] = {"file.png": ["--model", file], "run.png": []}
    for name, source in sources.items():
        done = tld("sample", TINY, *run, "a small red star", *source, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "file.png") as one, Image.open(tmp_path / "run.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
