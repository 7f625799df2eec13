"""The examples, and the Python of the documentation, run on a small workspace with an
untrained model."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
import yaml
from nbclient import NotebookClient
from PIL import Image
from torch import Tensor

from data_catalog.shapes.dataset import parse_caption
from examples import custom_sampler, read_encodings, sample_from_python
from pipeline.config.run import RunConfig
from pipeline.run.stage_events import StageEvent
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import REPOSITORY
from tests.support.small import small
from tests.support.untrained import untrained_generator
from tests.support.workspace import make_workspace
from tld_model.sampler import noise_levels

NOTEBOOK = REPOSITORY / "examples" / "train_and_sample.ipynb"
CAPTION = "a small red star in the top left on a blue background"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_workspace(tmp_path_factory.mktemp("data"))


@pytest.fixture
def encodings(run: RunConfig) -> Path:
    folder = stage_statuses(RunInputs(run))["encode"].folder
    assert folder
    return folder


@pytest.fixture
def model(run: RunConfig) -> Path:
    manifest = stage_statuses(RunInputs(run))["train"].manifest
    assert manifest
    return manifest.file("denoiser.safetensors")


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def checkout(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which conf/tiny.yaml is that run, the current one."""
    path = tmp_path / "conf" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prompts_become_images(checkout: Path) -> None:
    words = ["conf/tiny.yaml", CAPTION, "a circle", "--seed", "7", "--out", str(checkout / "made")]

    paths = sample_from_python.main(words)

    assert [path.name for path in paths] == ["0000-seed7.png", "0001-seed8.png"]
    assert size_of(paths[0]) == (64, 64)
    before = paths[0].read_bytes()
    sample_from_python.main(words)
    assert paths[0].read_bytes() == before


def test_encodings_open_without_the_project(
    encodings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = list(read_encodings.read_shards(encodings))
    for shard in shards:
        assert len(shard.rows) == len(shard.latents) == len(shard.text)
    assert 0.5 < np.concatenate([shard.latents for shard in shards]).std() < 2

    read_encodings.main([str(encodings)])

    assert capsys.readouterr().out.startswith(
        "40 pairs, latents [4, 8, 8], text 64 wide\nchannel 0: spread"
    )


def test_only_pandas_and_numpy_read_encodings() -> None:
    imports = re.findall(
        r"^(?:from|import) (\w+)", Path(read_encodings.__file__).read_text(), re.MULTILINE
    )

    assert not {"data_catalog", "tld_model", "pipeline", "flows", "torch"} & set(imports)


def test_a_solver_of_ones_own_samples(model: Path, tmp_path: Path) -> None:
    path = custom_sampler.main([str(model), CAPTION, "--out", str(tmp_path / "star.png")])

    assert size_of(path) == (64, 64)


def test_the_midpoint_method_is_nearer_to_the_solution_than_euler_is() -> None:
    def predict(noisy: Tensor, level: float) -> Tensor:
        """Exact where clean latents are normal with mean 0 and variance 1."""
        return noisy * (1 - level) / ((1 - level) ** 2 + level**2)

    def euler(noise: Tensor, levels: list[float]) -> Tensor:
        x = noise
        for level, following in pairwise(levels):
            x = x + (following - level) * (x - predict(x, level)) / level
        return predict(x, levels[-1])

    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = euler(noise, noise_levels(4000))
    midpoint = custom_sampler.solve_midpoint(predict, noise, noise_levels(20))

    assert (midpoint - exact).abs().max() < 0.2 * (
        euler(noise, noise_levels(20)) - exact
    ).abs().max()


def outputs_of(cell: Any) -> str:
    """What a cell shows: its text, and the kinds of its other data."""
    shown = [
        one.get("text") or " ".join([*one["data"], one["data"].get("text/plain", "")])
        for one in cell.outputs
    ]
    return "\n".join(shown)


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    """All its cells, on a smaller run."""
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "it is stored without"
    settings, runs, plot, samples, report, encodings = cells
    prompts = re.findall(r'"(an? [^"]+)"', samples.source)
    assert [bool(parse_caption(prompt)) for prompt in prompts] == [True] * 4
    settings.source = re.sub(
        r"overrides = \[.*\]", f"overrides = {small('data')}", settings.source, flags=re.DOTALL
    )

    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=folder).execute(
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )

    assert "train     finished" in outputs_of(runs)
    assert "train     step 12  held-out loss" in outputs_of(runs)
    assert "image/png" in outputs_of(plot)
    assert "image/png" in outputs_of(samples)
    assert "clip_score" in outputs_of(report)
    assert "PngImageFile" in outputs_of(report)
    assert "torch.Size([8, 4, 8, 8])" in outputs_of(encodings)


def test_the_run_on_a_table_of_ones_own_is_valid() -> None:
    text = (REPOSITORY / "examples" / "train_on_my_table.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)

    assert RunConfig.model_validate(yaml.safe_load(config)).download.rows.columns.url == "link"


def test_the_python_of_the_tutorial_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", plt.close)
    text = (REPOSITORY / "docs" / "tutorials" / "from-python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}

    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "from-python.md", "exec"), names)

    assert size_of(checkout / "star.png") == (64, 64)
    assert len(names["images"]) == 4
    assert names["outputs"]["train"].folder.is_dir()
    for step in (1, 2):
        names["plot_loss"](StageEvent("train", "metrics", step=step, values={"loss": 1 / step}))
    assert names["losses"] == [(1, 1.0), (2, 0.5)]
    assert names["batch"].latents.shape == (8, 4, 8, 8)


def test_the_python_of_the_reference_runs(encodings: Path, model: Path) -> None:
    text = (REPOSITORY / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
    generate = untrained_generator()
    names: dict[str, Any] = {
        "generate": generate,
        "images": generate([CAPTION]),
        "folder": encodings,
        "model": model,
    }

    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "python-api.md", "exec"), names)

    assert names["batch"].latents.shape == (8, 4, 8, 8)
    assert (names["latents"] == names["target"]).all()
