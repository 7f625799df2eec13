"""`tld sample` as a user runs it: what it draws, what its PNGs tell, how they are repeated, what it
refuses."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from flows.cli.sample import sample
from flows.cli.sample_options import SampleOptions
from flows.terminal.errors import UserError
from flows.tracking.logged_model import DETAILS_FILE
from pipeline.generate.generator import load_generator
from pipeline.generate.image_metadata import ImageMetadata
from pipeline.generate.png_metadata import read_metadata
from pipeline.generate.request import SampleRequest
from pipeline.reporting.image_grid import image_grid
from tests.support.command import ENVIRONMENT, REPOSITORY, command, tld
from tests.support.small import TINY
from tests.support.untrained import untrained_generator
from tests.support.workspace import make_workspace, overrides
from tld_model.checkpoint import save_denoiser
from tld_model.config import SamplingSettings

STAR, CIRCLE = "a small red star", "ein grüner Kreis ✶ auf weiß"
QUICK = ("evaluate.steps=2", "evaluate.guidance=3", "evaluate.device=cpu")


def save_model(path: Path, seed: int) -> Path:
    """A denoiser that was never trained."""
    denoiser = untrained_generator().denoiser
    torch.manual_seed(seed)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    save_denoiser(path, denoiser.state_dict(), denoiser.config)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("secret-folder") / "denoiser.safetensors", 1))


@pytest.fixture
def draw(model: str, tmp_path: Path) -> Any:
    """The command in this process, with that model and few steps."""

    def run(*words: str, **options: Any) -> Path:
        values = {"model": model, "out": tmp_path / "out.png", **options}
        typed = (f"root={tmp_path / 'none'}", *words, *QUICK)
        sample(TINY, *typed, options=SampleOptions(**values))
        return Path(values["out"])

    return run


def metadata_of(path: Path) -> ImageMetadata:
    return read_metadata(path, SamplingSettings())


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


def test_a_folder_gets_a_png_for_each_image_and_each_is_repeated_to_the_bit(
    draw: Any, model: str, tmp_path: Path
) -> None:
    folder = draw(
        STAR, CIRCLE, count=3, seed=7, size="96x64", negative="a square", out=tmp_path / "many"
    )
    names = [f"000{prompt}-seed{seed}.png" for prompt in (0, 1) for seed in (7, 8, 9)]
    assert sorted(path.name for path in folder.iterdir()) == names
    generate = load_generator(Path(model), "shapes-vae", "shapes-clip", "cpu")
    for name, prompt, seed in ((names[0], STAR, 7), (names[5], CIRCLE, 9)):
        alone = generate([prompt], [seed], SamplingSettings(2, 3.0), "a square", (96, 64))[0]
        np.testing.assert_array_equal(pixels(folder / name), alone)
        again = draw(like=folder / name, out=tmp_path / "again.png")
        assert again.read_bytes() == (folder / name).read_bytes()


def test_a_grid_is_repeated_and_an_option_changes_only_that(
    draw: Any, model: str, tmp_path: Path
) -> None:
    first = draw(STAR, count=3, seed=5, solver="heun", out=tmp_path / "first.png")
    metadata = metadata_of(first)
    assert metadata.request == SampleRequest(
        prompts=(STAR,),
        count=3,
        seed=5,
        size=(64, 64),
        **asdict(SamplingSettings(2, 3.0, "heun")),
    )
    assert draw(like=first).read_bytes() == first.read_bytes()
    assert "secret-folder" not in metadata.model_dump_json()
    assert str(tmp_path) not in metadata.model_dump_json()

    changed = draw(CIRCLE, like=first, steps=3)
    assert metadata_of(changed).request == metadata.request.model_copy(
        update={"steps": 3, "prompts": (CIRCLE,)}
    )
    generate = load_generator(Path(model), "shapes-vae", "shapes-clip", "cpu")
    drawn = generate([CIRCLE] * 3, [5, 6, 7], SamplingSettings(3, 3.0, "heun"))
    np.testing.assert_array_equal(
        pixels(changed), np.asarray(image_grid(list(drawn), [CIRCLE] * 3))
    )


def test_prompts_come_from_a_file_or_standard_input(
    draw: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "prompts.txt").write_text(f"{STAR}\n\n  {CIRCLE}\n", encoding="utf-8")
    request: Any = metadata_of(draw(prompts=tmp_path / "prompts.txt")).request
    assert (request.prompts, request.count) == ((STAR, CIRCLE), 1)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{CIRCLE}\n"))
    request = metadata_of(draw(STAR, prompts=Path("-"), count=2)).request
    assert (request.prompts, request.count) == ((STAR, CIRCLE), 2)


def test_another_model_is_refused_unless_it_is_wanted(draw: Any, tmp_path: Path) -> None:
    first, other = (
        draw(STAR, count=1, out=tmp_path / "first.png"),
        str(save_model(tmp_path / "d.safetensors", 2)),
    )
    with pytest.raises(
        UserError, match=r"(?s)made with another model.*denoiser\.safetensors.*'d\.safetensors'"
    ):
        draw(like=first, model=other)
    assert (pixels(draw(like=first, model=other, other_model=True)) != pixels(first)).any()


def test_of_a_run_any_average_draws(tmp_path: Path) -> None:
    described = overrides(tmp_path / "data", train__ema_decay="[0.9, 0.99]")
    config = make_workspace(tmp_path / "data", train__ema_decay="[0.9, 0.99]")
    (folder,) = (path.parent for path in config.folder.glob("03_model/*/denoiser.safetensors"))
    save_model(folder / "denoiser-ema1.safetensors", 3)
    drawn = []
    for ema in (None, 0):
        options = SampleOptions(count=1, ema=ema, out=tmp_path / "a.png")
        sample(TINY, STAR, *described, options=options)
        drawn.append((tmp_path / "a.png").read_bytes())
    assert drawn[0] == drawn[1]
    model = metadata_of(tmp_path / "a.png").origin.model
    assert model
    assert model.source == f"tiny, {folder.name}/denoiser.safetensors"
    options = SampleOptions(ema=2, out=tmp_path / "b.png")
    with pytest.raises(UserError, match="--ema: there is no average 2; train"):
        sample(TINY, STAR, *described, options=options)


def test_a_model_of_mlflow_draws_by_alias_and_version(
    draw: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no run has been recorded in"):
        draw(STAR, model="models:/tld@champion")
    root = tmp_path / "mlflow"
    root.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    client = MlflowClient()
    experiment = client.create_experiment("tiny", (root / "artifacts").as_uri())
    logged = client.create_logged_model(experiment, name="denoiser")
    client.log_model_artifact(logged.model_id, model)
    details = {
        "vae": "shapes-vae",
        "clip": "shapes-clip",
        "sampling": asdict(SamplingSettings(2, 2.0)),
    }
    (tmp_path / DETAILS_FILE).write_text(json.dumps(details))
    client.log_model_artifact(logged.model_id, str(tmp_path / DETAILS_FILE))
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model("tld")
    client.create_model_version("tld", f"models:/{logged.model_id}", model_id=logged.model_id)
    client.set_registered_model_alias("tld", "champion", "1")

    expected = pixels(draw(STAR, count=1, out=tmp_path / "expected.png"))
    for uri in (
        "models:/tld@champion",
        "models:/tld/champion",
        "models:/tld/1",
        f"models:/{logged.model_id}",
    ):
        drawn = draw(STAR, f"root={root}", count=1, model=uri)
        np.testing.assert_array_equal(pixels(drawn), expected)
        origin = metadata_of(drawn).origin
        assert origin.model
        assert origin.model.source == uri
        assert draw(f"root={root}", like=tmp_path / "expected.png", model=uri)
    for uri in ("models:/tld@gone", "models:/other/1", "runs:/0123/denoiser"):
        with pytest.raises(UserError, match="MLflow reports") as refused:
            draw(STAR, f"root={root}", model=uri)
        assert ("tld promote CONFIG" in str(refused.value)) is uri.startswith("models:")


@pytest.mark.slow
def test_standard_input_is_read_in_a_shell(model: str, tmp_path: Path) -> None:
    described = [str(TINY), "--prompts", "-", f"root={tmp_path / 'none'}", *QUICK, "--model", model]
    asked = [*described, "--out", str(tmp_path / "a.png")]
    done = subprocess.run(
        command("sample", *asked),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        input=f"{STAR}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert metadata_of(tmp_path / "a.png").request.prompts == (STAR,)


def test_all_mistakes_are_told_at_once_before_the_model_is_loaded(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "d.safetensors").write_bytes(b"no model")
    options = ("--size", "10x", "--steps", "0", "--seed", "-1", "--prompts", tmp_path / "gone.txt")
    more = ("--ema", "1", "--out", tmp_path / "x.jpg", "--model", tmp_path / "d.safetensors")
    done = tld("sample", TINY, " ", f"root={tmp_path / 'none'}", *options, *more)
    assert done.returncode == 2, done.stderr
    assert "no prompt" not in done.stderr
    assert len(done.stderr.splitlines()) == 8
    for says in (
        *(
            "--size: must look like 128x64",
            "--steps: Input should be greater than or equal to 1, got 0",
            "--seed: ",
        ),
        *(
            "--prompts: cannot read",
            "prompt 1: the prompt is empty",
            "--ema selects an EMA of the run's own model",
        ),
        "--out: must be FILE.png for a grid",
    ):
        assert says in done.stderr
    with pytest.raises(UserError, match="no prompt; write one in quotes") as mistake:
        sample(TINY, options=SampleOptions(model=model, size="100x64", count=401, seed=-1))
    assert "--size: 100x64: this model needs multiples of 16 pixels" in str(mistake.value)
    assert "--seed: " in str(mistake.value)
    with pytest.raises(UserError, match=r"(?s)no prompt.*a grid holds up to 400 images, not 401"):
        sample(TINY, options=SampleOptions(model=model, count=401))
    with pytest.raises(
        UserError,
        match="--size: 100x64: this model needs multiples of 16 pixels; nearest are 96x64",
    ):
        sample(TINY, STAR, options=SampleOptions(model=model, size="100x64"))
    with pytest.raises(UserError, match="does nothing at guidance 1"):
        sample(TINY, STAR, options=SampleOptions(model=model, negative="a circle", guidance=1))
    with pytest.raises(UserError, match="a grid holds up to 400 images, not 401; name a folder"):
        sample(TINY, STAR, options=SampleOptions(model=model, count=401))
    with pytest.raises(UserError, match=r"--out: cannot write /proc/star\.png: "):
        sample(TINY, STAR, options=SampleOptions(model=model, out=Path("/proc/star.png")))
    assert not (tmp_path / "none").exists()


def test_its_help_teaches() -> None:
    text = tld("sample", "--help").stdout
    for part in (
        "--like",
        "--size",
        "--negative",
        "FILE.png",
        "models:/tiny@champion",
        "captions.txt",
    ):
        assert part in text
