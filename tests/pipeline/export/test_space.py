"""The app of a Space: what it generates, without Gradio, which the tests do not install."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.config.evaluate import EvaluateConfig
from pipeline.export.diffusers import export_diffusers
from pipeline.export.space import write_space
from tests.support.untrained import untrained_generator
from tld_model.config import SamplingSettings

PROMPT = 'a "small" red star 🌟'
# Runs the app as another program than Gradio's, and saves what it generates.
GENERATE = """
import runpy
app = runpy.run_path("app.py", run_name="app")
images = app["generate"](app["PROMPT"], "", 7, app["STEPS"], app["GUIDANCE"])
assert len(images) == 4
images[1].save("second.png")
assert app["generate"](app["PROMPT"], "blue", 7, 2, 2.0)[1] != images[1]
"""


def test_its_files(tmp_path: Path) -> None:
    write_space(tmp_path, "me/stars", PROMPT, SamplingSettings(20, 3.0))
    source = (tmp_path / "app.py").read_text(encoding="utf-8")
    compile(source, "app.py", "exec")
    assert "PROMPT = 'a \"small\" red star 🌟'\nSTEPS, GUIDANCE = 20, 3.0\n" in source
    needs = (tmp_path / "requirements.txt").read_text().splitlines()
    assert f"diffusers=={version('diffusers')}" in needs
    assert "+" not in "".join(needs), "package indexes do not have local versions"
    _, front, text = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n")
    settings = yaml.safe_load(front)
    assert settings["sdk"] == "gradio"
    assert settings["app_file"] == "app.py"
    assert settings["models"] == ["me/stars"]
    assert "HF_TOKEN" in text


@pytest.mark.slow
def test_it_generates_with_an_exported_model(tmp_path: Path) -> None:
    generate = untrained_generator()
    defaults = EvaluateConfig(steps=2, guidance=2.0)
    export_diffusers(generate, defaults, lambda _: "", PROMPT, tmp_path / "model")
    write_space(tmp_path, "me/stars", PROMPT, defaults.sampling)
    environment = {
        **os.environ,
        "MODEL": str(tmp_path / "model"),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", GENERATE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "second.png") as image:
        assert image.size == (64, 64)
        assert np.asarray(image).std() > 10
