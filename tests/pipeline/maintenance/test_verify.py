"""Damage of every kind to files of every kind: found, and repaired into the same content."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest, ManifestError
from data_catalog.storage.receipts import is_evicted
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.maintenance.verify import changed_stages, forget_damaged, verify
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.stage import train
from tests.support.command import tld
from tests.support.mapping import map_here
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tld_model.config import DenoiserConfig


def config_for(root: Path, keep_images: bool = True) -> RunConfig:
    return RunConfig(
        name="test",
        root=root,
        download=DownloadConfig(
            urls="shapes",
            limit=20,
            image_size=64,
            image_format="png",
            shard_size=10,
            threads=4,
            near_duplicate_bits=None,
        ),
        encode=EncodeConfig(
            vae="shapes-vae", clip="shapes-clip", device="cpu", keep_images=keep_images
        ),
    )


def run(config: RunConfig) -> dict[str, Manifest]:
    """The first two stages, as the flow runs them, in this process."""
    track = RememberingTracker()
    images = run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, map_here),
    )
    encodings = run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        lambda out: encode(images, config.encode, out, track, map_here),
    )
    return {"download": images, "encode": encodings}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("whole") / "data"
    run(config_for(root))
    yield root
    urllib.request.install_opener(
        urllib.request.build_opener()
    )  # not that of a shapes server that is gone


@pytest.fixture
def workspace(whole: Path, tmp_path: Path) -> RunConfig:
    shutil.copytree(whole, tmp_path / "data")
    return config_for(tmp_path / "data")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def delete(path: Path) -> None:
    path.unlink()


def test_what_is_whole_has_no_damage(workspace: RunConfig) -> None:
    verified = verify(RunInputs(workspace))
    assert verified.damages == ()
    assert set(verified.outputs) == {"download", "encode"}
    assert verified.files == 10  # each encoded shard with an image of its round trips
    assert verified.bytes > 10_000


@pytest.mark.parametrize(
    "file", ["01_images/*/00000.tar", "01_images/*/00001.parquet", "02_encodings/*/00001.npz"]
)
@pytest.mark.parametrize(
    ("harm", "problem"),
    [(flip_a_byte, "has other content"), (truncate, "bytes, not"), (delete, "is missing")],
)
def test_damage_is_found_and_just_its_shard_is_made_again(
    workspace: RunConfig, file: str, harm: Callable[[Path], None], problem: str
) -> None:
    before = verify(RunInputs(workspace))
    (path,) = workspace.folder.glob(file)
    others = {
        p: p.stat().st_mtime_ns
        for p in workspace.folder.rglob("0*.*")
        if p.name[:5] != path.name[:5]
    }
    harm(path)
    verified = verify(RunInputs(workspace))
    (damage,) = verified.damages
    assert damage.path == path
    assert problem in damage.problem

    forget_damaged(verified)
    run(workspace)
    after = verify(RunInputs(workspace))
    assert after.damages == ()
    assert changed_stages(before, after) == []
    assert {p: p.stat().st_mtime_ns for p in others} == others
    assert {status.state for status in list(stage_statuses(RunInputs(workspace)).values())[:2]} == {
        "fresh"
    }


def test_a_damaged_parquet_of_encodings_is_made_again(workspace: RunConfig) -> None:
    (path,) = workspace.folder.glob("02_encodings/*/00000.parquet")
    content = path.read_bytes()
    flip_a_byte(path)
    verified = verify(RunInputs(workspace))
    assert verified.last_damaged_stage == "encode"
    forget_damaged(verified)
    run(workspace)
    assert path.read_bytes() == content


@pytest.mark.parametrize("file", ["01_images/*/00001.tar", "02_encodings/*/00001.npz"])
def test_a_run_alone_makes_again_what_is_missing_and_nothing_else(
    workspace: RunConfig, file: str
) -> None:
    before = {
        stage: manifest.digest for stage, manifest in verify(RunInputs(workspace)).outputs.items()
    }
    (path,) = workspace.folder.glob(file)
    others = {p: p.stat().st_mtime_ns for p in workspace.folder.rglob("00000.*")}
    delete(path)
    assert {stage: manifest.digest for stage, manifest in run(workspace).items()} == before
    assert {p: p.stat().st_mtime_ns for p in others} == others


@pytest.mark.parametrize("file", ["02_encodings/*/manifest.json", "01_images/*/00000_stats.json"])
def test_a_damaged_manifest_or_receipt_is_made_again(workspace: RunConfig, file: str) -> None:
    before = {
        stage: manifest.digest for stage, manifest in verify(RunInputs(workspace)).outputs.items()
    }
    (path,) = workspace.folder.glob(file)
    truncate(path)
    verified = verify(RunInputs(workspace))
    assert [damage.path for damage in verified.damages] == [path]
    forget_damaged(verified)
    run(workspace)
    assert {
        stage: manifest.digest for stage, manifest in verify(RunInputs(workspace)).outputs.items()
    } == before
    assert verify(RunInputs(workspace)).damages == ()


def test_evicted_images_are_no_damage_and_come_back_where_they_are_needed(
    tmp_path: Path,
) -> None:
    config = config_for(tmp_path / "data", keep_images=False)
    outputs = run(config)
    verified = verify(RunInputs(config))
    assert (verified.damages, verified.released) == ((), 2)
    assert stage_statuses(RunInputs(config))["encode"].state == "fresh"

    flip_a_byte(outputs["encode"].file("00001.npz"))
    verified = verify(RunInputs(config))
    forget_damaged(verified)
    again = run(config)
    assert again["encode"].digest == outputs["encode"].digest
    assert verify(RunInputs(config)).damages == ()
    assert is_evicted(outputs["download"].folder, "00001.tar"), "and it is let go again"


@pytest.mark.slow
def test_the_command_says_what_is_damaged_and_repairs_it(tmp_path: Path) -> None:
    settings = small(tmp_path / "data", download__limit=20, download__shard_size=10)
    nothing = tld("catalog", "verify", TINY, *settings)
    assert nothing.returncode == 2
    assert "nothing to verify" in nothing.stderr

    path = run(load_config(TINY, settings))["encode"].file("00000.npz")
    content = path.read_bytes()
    flip_a_byte(path)
    done = tld("catalog", "verify", TINY, *settings)
    assert done.returncode == 1
    assert f"damaged: {path} has other content" in done.stdout
    assert "--repair" in done.stderr

    repaired = tld("catalog", "verify", TINY, *settings, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "repaired: every file matches its digest" in repaired.stdout
    assert path.read_bytes() == content


def test_a_training_refuses_encodings_with_a_flipped_bit(
    workspace: RunConfig, track: RememberingTracker
) -> None:
    encodings = stage_statuses(RunInputs(workspace))["encode"].manifest
    assert encodings
    flip_a_byte(encodings.file("00001.npz"))
    shape = DenoiserConfig(latent_channels=4, latent_size=8, text_dim=64, width=64, layers=1)
    with pytest.raises(ManifestError, match=r"00001\.npz has other content .*catalog verify"):
        train(encodings, workspace.train, shape, workspace.folder / "model", track)
