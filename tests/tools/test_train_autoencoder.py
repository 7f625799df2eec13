"""Tests of tools/train_autoencoder.py, with the recipe and the reading of images behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.download.stage import download
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support.feature_networks import needs_efficientnet
from tests.support.mapping import map_here
from tests.support.tracker import RememberingTracker
from tools.autoencoder_recipe import layout_problem, new_autoencoder, round_trip, round_trip_psnr
from tools.stage_one_images import read_images
from tools.train_autoencoder import load_autoencoder, main

EDGE = 16


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose 40 images, in a folder, have been downloaded. Each is of one colour and one
    stripe; every fourth is held out."""
    folder = tmp_path_factory.mktemp("striped")
    rng = np.random.default_rng(0)
    lines = ["file_name,caption,split"]
    for number in range(40):
        pixels = np.full((EDGE, EDGE, 3), rng.integers(0, 256, 3), np.uint8)
        pixels[rng.integers(0, EDGE - 4) :][:4] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,a stripe,{'train' if number % 4 else 'held_out'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(
        f"name: striped\nroot: {folder.parent / 'data'}\n"
        f"download: {{images: {folder}, split_column: split, image_size: {EDGE}, "
        "image_format: png, near_duplicate_bits: null, drop_duplicates: false, shard_size: 30}\n"
    )
    config = load_config(path)
    run_stage(
        RunInputs(config).stage_run("download", {}),
        RememberingTracker(),
        lambda out: download(config.download, out, RememberingTracker(), map_here),
    )
    return path


@pytest.fixture
def config(config_file: Path) -> RunConfig:
    return load_config(config_file)


def trained(config_file: Path, out: Path, *more: str) -> int:
    sizes = ["--channels", "4", "--widths", "16,16", "--batch-size", "16"]
    return main([str(config_file), "--out", str(out), "--device", "cpu", *sizes, *more])


def test_images_are_those_of_stage_one_split_as_the_run_splits_them(config: RunConfig) -> None:
    split = read_images(config, 2**30)
    assert (len(split.images), len(split.train), len(split.held_out)) == (40, 30, 10)
    with Image.open(f"{config.download.images}/0.png") as file:
        stripes = np.asarray(file)
    held_out = split.held_out.permute(0, 2, 3, 1).numpy()
    assert any((image == stripes).all() for image in held_out)
    assert not any((split.images[number] == held_out[0].transpose(2, 0, 1)).all()
                   for number in split.train.numpy())  # fmt: skip


def test_a_random_part_of_the_images_where_memory_is_small(config: RunConfig) -> None:
    split = read_images(config, 12 * 3 * EDGE**2)
    assert len(split.images) == 12
    assert len(split.train) + len(split.held_out) == 12
    everything = read_images(config, 2**30).images.flatten(1)
    assert all((everything == image.flatten()).all(1).any() for image in split.images)


def test_without_a_finished_download_it_says_what_to_type(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(config_file, tmp_path / "vae", "download.image_size=32") == 2
    problem = capsys.readouterr().err
    assert "has no finished download with these settings" in problem
    assert "tld run CONFIG --until download" in problem
    assert not (tmp_path / "vae").exists()


def test_training_beats_the_mean_colour_and_its_folder_loads_as_a_vae(
    config_file: Path, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vae"
    assert trained(config_file, out, "--steps", "250", "--learning-rate", "5e-3") == 0
    split = read_images(config, 2**30)
    mean = split.held_out.float().mean((2, 3), keepdim=True).round().byte()
    error = (split.held_out.double() - mean) / 255
    alone = -10 * error.square().mean().log10().item()
    vae = load_autoencoder(out)
    reached = round_trip_psnr(vae, split.held_out)
    assert reached > alone + 1
    printed = capsys.readouterr().out
    assert f"{reached:.2f} dB PSNR on all 10 held-out images" in printed
    assert "latent_channels: 4" in printed
    assert "latent_size: 4" in printed
    with Image.open(out / "round_trips.png") as grid:
        assert grid.width > 8 * 128


def test_latents_of_training_images_are_scaled_to_a_spread_of_one(
    config_file: Path, config: RunConfig, tmp_path: Path
) -> None:
    out = tmp_path / "vae"
    trained(config_file, out, "--steps", "3")
    split = read_images(config, 2**30)
    vae = load_autoencoder(out)
    pixels = split.images[split.train].float() / 127.5 - 1
    with torch.no_grad():
        scaled = vae.encode(pixels).latent * vae.config["scaling_factor"]
    assert scaled.std().item() == pytest.approx(1, abs=0.01)


def test_a_stopped_training_goes_on_from_its_weights(config_file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trained(config_file, first, "--steps", "60", "--learning-rate", "5e-3")
    main(
        [str(config_file), "--out", str(second), "--start", str(first), "--device", "cpu",
         "--steps", "1", "--learning-rate", "1e-12"]
    )  # fmt: skip
    before, after = (load_autoencoder(out).state_dict() for out in (first, second))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_all_bad_options_are_reported_at_once(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "clip"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "clip"}')
    sizes = ["--channels", "5", "--widths", "16,16,16,16,16"]
    assert main([str(config_file), "--out", str(other), *sizes]) == 2
    problems = capsys.readouterr().err
    assert "the last width, 16, must divide by the 5 channels" in problems
    assert "images become 32 times smaller" in problems
    assert f"{other} exists and is no autoencoder" in problems
    assert (other / "config.json").exists()
    assert main([str(config_file), "--out", str(tmp_path / "new"), "--start", str(other)]) == 2
    assert f"there is no autoencoder of this tool in {other}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps: '0' is not a whole number, 1 or more"),
        (["--learning-rate", "0"], "--learning-rate: '0' is not a number, more than 0"),
        (["--perceptual", "-1"], "--perceptual: '-1' is not a number, 0 or more"),
        (["--memory-gb", "nan"], "--memory-gb: 'nan' is not a number, more than 0"),
        (["--widths", "a"], "--widths: 'a' is not a list of whole numbers such as 64,128,128"),
        (["--start", "x", "--channels", "4"], "leave out --channels and --widths"),
    ],
)
def test_bad_numbers_are_refused_with_what_is_allowed(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conf/x.yaml", "--out", "x", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("widths", "channels", "fits"),
    [
        ((64, 128, 128), 16, True),
        ((16,), 4, True),
        ((64, 96), 4, False),
        ((64, 512), 4, False),
        ((6, 6), 2, False),
        ((64, 128), 24, False),
    ],
)
def test_layouts_that_fit_are_those_that_run(
    widths: tuple[int, ...], channels: int, fits: bool
) -> None:
    assert (layout_problem(widths, channels) == "") is fits

    def runs() -> bool:
        pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        try:
            return round_trip(new_autoencoder(widths, channels), pixels).shape == pixels.shape
        except (RuntimeError, AssertionError, ValueError):
            return False

    assert runs() is fits


@needs_efficientnet
def test_a_perceptual_loss_changes_what_is_learned(config_file: Path, tmp_path: Path) -> None:
    trained(config_file, tmp_path / "plain", "--steps", "30")
    trained(config_file, tmp_path / "perceptual", "--steps", "30", "--perceptual", "1")
    first, second = (
        load_autoencoder(tmp_path / name).state_dict() for name in ("plain", "perceptual")
    )
    assert not torch.allclose(first["encoder.conv_out.weight"], second["encoder.conv_out.weight"])
