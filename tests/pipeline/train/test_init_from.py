"""A training that starts from another's weights: what is carried over, what is refused, what counts
as a change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from data_catalog.model_files import MODEL_FILE
from data_catalog.storage.manifest import ManifestError
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.continuation import with_weights_of
from pipeline.train.loop import initial_state
from tests.support.command import REPOSITORY
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, output
from tld_model.checkpoint import load_denoiser, save_denoiser
from tld_model.denoiser import Denoiser
from tld_model.encoders.names import encoder_identity


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [*small(tmp_path / "data"), *overrides])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of a denoiser of conf/tiny.yaml made small."""
    config = config_of(tmp_path).model
    torch.manual_seed(7)
    (tmp_path / "base").mkdir()
    encoders = {"vae": "shapes-vae", "vae_identity": encoder_identity("shapes-vae")}
    save_denoiser(
        tmp_path / "base/denoiser.safetensors", Denoiser(config).state_dict(), config, encoders
    )
    return tmp_path / "base"


@pytest.mark.parametrize("name", ["", "denoiser.safetensors"])
def test_a_training_starts_with_the_weights_of_a_file_or_a_folder(
    tmp_path: Path, base: Path, name: str
) -> None:
    config = config_of(tmp_path, f"train.init_from={base / name}")
    check_run(config)
    state = initial_state(config.train, config.model, "cpu")
    torch.manual_seed(7)
    expected = Denoiser(config.model)
    for denoiser in (state.denoiser, state.ema):
        for weight, value in zip(denoiser.parameters(), expected.parameters(), strict=True):
            assert torch.equal(weight, value)


def test_a_run_on_larger_images_or_with_inpainting_starts_from_it(
    tmp_path: Path, base: Path
) -> None:
    overrides = ["download.image_size=128", "model.latent_size=16", "model.inpainting=true"]
    config = config_of(tmp_path, f"train.init_from={base}", *overrides)
    check_run(config)
    denoiser = initial_state(config.train, config.model, "cpu").denoiser
    assert denoiser.position is not None
    assert denoiser.position.shape == (64, 64)
    assert denoiser.patchify_known.weight.eq(0).all()


def test_an_architecture_that_differs_is_refused_with_every_setting_named(
    tmp_path: Path, base: Path
) -> None:
    overrides = ["model.width=128", "model.layers=3", "model.predicts=v", "model.blocks=joint"]
    with pytest.raises(ConfigError) as raised:
        check_run(config_of(tmp_path, f"train.init_from={base}", *overrides))
    for says in (
        f"train.init_from: model.width is 128, but {base}/denoiser.safetensors has 64; set "
        "model.width=64",
        "model.layers is 3",
        "set model.predicts=x0",
        "model.blocks is joint",
        "set model.blocks=original",
    ):
        assert says in str(raised.value)
    assert "latent_size" not in str(raised.value)


def test_what_is_no_denoiser_or_one_of_another_vae_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.init_from: there is no file .*nowhere"):
        check_run(config_of(tmp_path, f"train.init_from={tmp_path}/nowhere"))
    with pytest.raises(ConfigError, match=r"train.init_from: .*nowhere: No such file"):
        RunInputs(config_of(tmp_path, f"train.init_from={tmp_path}/nowhere")).settings("train")
    vae = tmp_path / "vae"
    shutil.copytree(REPOSITORY / "tld_model/demo_encoders/vae", vae)
    (vae / "config.json").write_text((vae / "config.json").read_text() + " ")
    with pytest.raises(
        ConfigError, match=r"trained on encodings by VAE 'shapes-vae', but these are by"
    ):
        check_run(config_of(tmp_path, f"train.init_from={base}", f"encode.vae={vae}"))


def test_the_content_of_the_start_counts_not_where_it_lies(tmp_path: Path, base: Path) -> None:
    def settings(*overrides: str) -> dict[str, object]:
        return RunInputs(config_of(tmp_path, *overrides)).settings("train")

    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.copy(base / "denoiser.safetensors", elsewhere)
    assert settings(f"train.init_from={base}") == settings(f"train.init_from={elsewhere}")
    assert settings(f"train.init_from={base}") != settings()
    before = settings(f"train.init_from={elsewhere}")
    config = config_of(tmp_path).model
    save_denoiser(elsewhere, Denoiser(config).state_dict(), config)
    assert settings(f"train.init_from={elsewhere}") != before


def test_how_a_batch_is_divided_is_no_change(tmp_path: Path) -> None:
    one, other = (
        RunInputs(config_of(tmp_path, *overrides)).settings("train")
        for overrides in ([], ["train.accumulate=4"])
    )
    assert one == other


def test_a_phase_begins_with_the_whole_model_of_the_phase_before(tmp_path: Path) -> None:
    larger = {"phases.a.model.latent_size": 16, "phases.a.train.seed": 3}
    config = make_workspace(tmp_path / "data", **larger)
    before, track = output(config.chain[0], "train"), RememberingTracker()
    training = with_weights_of(before, config.train, track)
    assert training == config.train.model_copy(update={"init_from": before.file(MODEL_FILE)})
    weights = load_denoiser(before.file(MODEL_FILE), "cpu").state_dict()
    begun = initial_state(training, config.model, "cpu").denoiser.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], begun[name])] == ["position"]

    path = before.file(MODEL_FILE)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ManifestError, match=r"has other content .* --repair"):
        with_weights_of(before, config.train, track)
