"""The same images through every door of stage 1 give the same encoded shards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from pyarrow import parquet

from data_catalog.storage.manifest import Manifest
from data_catalog.url_table.files import UrlTableError
from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.run import RunConfig
from pipeline.download.deduplicate import SAME_FILE
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.maintenance.excluded_rows import dropped_rows
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support import image_sets
from tests.support.command import CANARY
from tests.support.image_sets import CaptionedImage, image_set
from tests.support.mapping import map_here
from tests.support.object_server import object_server
from tests.support.odd_images import odd_images
from tests.support.tracker import RememberingTracker

SHARD = 16
DOORS = ("urls", "folder", "csv", "jsonl", "tars", "parquet", "dataset")


def config_for(root: Path, **settings: Any) -> RunConfig:
    usual: dict[str, Any] = {
        "image_size": 64,
        "min_image_size": 8,
        "image_format": "png",
        "shard_size": SHARD,
        "near_duplicate_bits": None,
        "allowed_networks": ["127.0.0.0/8"],
        "host_requests_per_s": None,
        "retries": 0,
        "min_success_rate": 0,
    }
    return RunConfig(
        name="doors",
        root=root,
        download=DownloadConfig(**{**usual, **settings}),
        encode=EncodeConfig(vae="shapes-vae", clip="shapes-clip", device="cpu"),
    )


def run_download(config: RunConfig, track: RememberingTracker | None = None) -> Manifest:
    track = track or RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, map_here),
    )


def run_encode(config: RunConfig, images: Manifest) -> Manifest:
    track = RememberingTracker()
    return run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        lambda out: encode(images, config.encode, out, track, map_here),
    )


def write(door: str, folder: Path, images: Sequence[CaptionedImage], per_tar: int) -> Path:
    """These images in the form of a door."""
    match door:
        case "folder":
            return image_sets.write_folder(folder, images)
        case "csv" | "jsonl":
            return image_sets.write_metadata(folder, images, door)
        case "tars":
            return image_sets.write_tars(folder, images, per_tar)
        case "parquet":
            return image_sets.write_parquet(folder / "train.parquet", images)
        case _:
            return image_sets.write_dataset(folder, images)


def through(
    door: str, folder: Path, images: Sequence[CaptionedImage], **settings: Any
) -> RunConfig:
    """A run that takes these images from one door. URLs need a server."""
    place = write(door, folder / door, images, per_tar=25)
    return config_for(folder / "data" / door, images=str(place), **settings)


def images_of(manifest: Manifest) -> list[dict[str, Any]]:
    """What the tables of the image shards say of each row, without its address."""
    tables = [parquet.read_table(manifest.file(f"{s.name}.parquet")) for s in manifest.shards]
    return [row for table in tables for row in table.drop_columns(["url"]).to_pylist()]


def accounted(manifest: Manifest) -> dict[str, Any]:
    account = manifest.figures["account"]
    lost = (*account["rejected"].values(), *account["failed"].values())
    assert account["rows"] == account["downloaded"] + sum(lost)
    return dict(account)


@pytest.mark.slow
def test_all_doors_give_encodings_that_are_equal_to_the_bit(tmp_path: Path) -> None:
    images = [
        replace(image, columns={"style": f"style {n % 3}", "place": "hier"})
        for n, image in enumerate(image_set(60))
    ]
    keep: dict[str, Any] = {"keep_columns": ["style", "place"]}
    configs = {door: through(door, tmp_path, images, **keep) for door in DOORS if door != "urls"}
    with image_sets.serve(images) as address:
        urls = image_sets.write_urls(tmp_path / "urls.csv", images, address)
        configs["urls"] = config_for(tmp_path / "data/urls", urls=str(urls), **keep)
        made = {door: run_download(config) for door, config in configs.items()}
    encodings = {door: run_encode(configs[door], manifest) for door, manifest in made.items()}
    expected = encodings["urls"]
    assert expected.rows == 60
    for door, manifest in encodings.items():
        assert [shard.name for shard in manifest.shards] == [s.name for s in expected.shards]
        for shard in manifest.shards:
            ours, theirs = (m.file(f"{shard.name}.npz") for m in (manifest, expected))
            assert ours.read_bytes() == theirs.read_bytes(), f"{door}: {shard.name}"
            with np.load(ours) as arrays:
                assert len(arrays["latents"])
            rows, others = (
                parquet.read_table(m.file(f"{shard.name}.parquet")) for m in (manifest, expected)
            )
            assert rows.drop_columns(["url"]).equals(others.drop_columns(["url"])), door
            numbers = [int(caption.split()[-1]) for caption in rows["caption"].to_pylist()]
            assert rows["style"].to_pylist() == [f"style {n % 3}" for n in numbers]
            assert rows.column_names[-2:] == ["style", "place"]
            assert door == "urls" or not rows["url"].equals(others["url"])


@pytest.mark.slow
def test_odd_images_have_the_same_outcomes_through_each_door(tmp_path: Path) -> None:
    odd = [CaptionedImage(name, body, name) for name, body in odd_images().items()]
    configs = {door: through(door, tmp_path, odd) for door in DOORS if door != "urls"}
    with image_sets.serve(odd) as address:
        urls = image_sets.write_urls(tmp_path / "urls.csv", odd, address)
        configs["urls"] = config_for(tmp_path / "data/urls", urls=str(urls))
        made = {door: run_download(config) for door, config in configs.items()}
    expected = accounted(made["urls"])
    assert expected["rows"] == len(odd) > 100
    assert expected["downloaded"] > 50
    for door, manifest in made.items():
        assert accounted(manifest) == expected, door
        assert images_of(manifest) == images_of(made["urls"]), door


class Killed(BaseException):
    """The end of a process, as far as its files show it."""


@pytest.mark.slow
def test_a_run_that_was_killed_keeps_its_shards(tmp_path: Path) -> None:
    config = through("tars", tmp_path, image_set(60))

    def killed_after_two(
        make_worker: Any, items: Any, workers: int, deadline_s: float | None = None
    ) -> Iterator[Any]:
        for number, result in enumerate(map_here(make_worker, items, workers, deadline_s)):
            yield result
            if number == 1:
                raise Killed

    track = RememberingTracker()
    stage_run = RunInputs(config).stage_run("download", {})
    with pytest.raises(Killed):
        run_stage(
            stage_run, track, lambda out: download(config.download, out, track, killed_after_two)
        )
    before = {path: path.stat().st_ino for path in stage_run.folder.glob("0000[01].*")}
    assert len(before) == 4
    manifest = run_download(config)
    assert accounted(manifest)["downloaded"] == 60
    assert {path: path.stat().st_ino for path in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("door", ["folder", "csv"])
def test_an_image_that_changes_reruns_its_shard_alone(tmp_path: Path, door: str) -> None:
    config = through(door, tmp_path, image_set(60))
    first = run_download(config)
    place = Path(str(config.download.images))
    moved = place.rename(tmp_path / "elsewhere")
    config = config_for(tmp_path / "data" / door, images=str(moved))
    assert stage_statuses(RunInputs(config))["download"].state == "fresh"

    (moved / "0020.jpg").write_bytes(image_set(1, size=(50, 50))[0].content)
    assert stage_statuses(RunInputs(config))["download"].state == "stale"
    second = run_download(config)
    assert second.rows == 60
    linked = [
        first.file(f"{shard.name}.tar").samefile(second.file(f"{shard.name}.tar"))
        for shard in first.shards
    ]
    assert linked == [True, False, True, True]


@pytest.mark.slow
def test_dropped_rows_are_all_rows_that_became_no_image(tmp_path: Path) -> None:
    images = image_set(30)
    folder = image_sets.write_metadata(tmp_path / "images", [*images, images[0]])
    rows = [
        *(f"{name},x" for name in ("../up.jpg", "/etc/hosts", "gone.jpg", "pipe.jpg")),
        "0001.jpg,",
    ]
    with (folder / "metadata.csv").open("a", encoding="utf-8") as stream:
        stream.write("\n".join(rows) + "\n")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "unnamed.jpg")
    (folder / "rest.jpg").symlink_to("nowhere")
    (folder / "0002.jpg").write_bytes(b"no image")
    shutil.copy(folder / "0003.jpg", folder / "0004.jpg")
    config = config_for(tmp_path / "data", images=str(folder))
    manifest = run_download(config)
    account = accounted(manifest)
    assert account["rejected"] == {"image that is listed twice": 1, "empty caption": 2}
    assert account["failed"] == {
        "file outside the folder": 2,
        "no such file": 1,
        "file cannot be read": 1,
        "not an image": 1,
    }
    assert account["dropped"] == {SAME_FILE: 1}
    dropped = list(dropped_rows(config.download, stage_statuses(RunInputs(config))))
    assert len(dropped) + manifest.rows == account["rows"] == 30 + 1 + 5 + 1


@pytest.mark.slow
def test_damaged_tars_and_unused_captions_are_warned_of(tmp_path: Path) -> None:
    place = image_sets.write_tars(tmp_path / "tars", image_set(40), 10)
    cut = place / "00001.tar"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (place / "00009.tar").write_bytes(b"")
    captions = tmp_path / "captions.csv"
    lines = [f"{number:04d},new {number}" for number in range(5, 50)]
    captions.write_text("\n".join(["key,caption", *lines, lines[0]]) + "\n")
    track = RememberingTracker()
    config = config_for(tmp_path / "data", images=str(place), captions=str(captions))
    manifest = run_download(config, track)
    account = accounted(manifest)
    assert account["rejected"] == {
        "key that the table of captions lacks": 5,
        "file that is damaged from there on": 2,
    }
    assert any("2 files are damaged" in text for text in track.warnings)
    assert any("captions.csv have a key that no row has" in text for text in track.warnings)
    assert any(text.startswith("1 rows of") for text in track.warnings)
    dropped = list(dropped_rows(config.download, stage_statuses(RunInputs(config))))
    assert len(dropped) == 7


@pytest.mark.slow
def test_input_that_cannot_be_read_at_all_is_one_message_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"garbage" * 300)
    config = config_for(tmp_path / "data", images=str(tmp_path / "0.tar"))
    with pytest.raises(UrlTableError, match="cannot be read as a tar") as told:
        run_download(config)
    assert told.value.exit_code == 2


@pytest.fixture
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """On an S3 server of its own, as the environment of a user tells of it."""
    with (
        object_server(tmp_path_factory.mktemp("server"), "images", "key", CANARY) as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("images")
        yield "s3://images"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # aiobotocore's connections
def test_images_in_object_storage_are_those_of_a_disk(tmp_path: Path, bucket: str) -> None:
    objects = fsspec.filesystem("s3")
    for door in ("folder", "tars", "parquet"):
        local = through(door, tmp_path, image_set(20))
        place = tmp_path / door
        for path in filter(Path.is_file, place.rglob("*")):
            objects.put_file(str(path), f"images/{door}/{path.relative_to(place)}")
        remote = config_for(tmp_path / "remote" / door, images=f"{bucket}/{door}")
        made = run_download(remote)
        assert images_of(made) == images_of(run_download(local)), door
        assert stage_statuses(RunInputs(remote))["download"].state == "fresh"
        last = max(filter(Path.is_file, place.rglob("*")))
        content = bytearray(last.read_bytes())
        content[10] ^= 1
        objects.pipe_file(f"images/{door}/{last.relative_to(place)}", bytes(content))
        assert stage_statuses(RunInputs(remote))["download"].state == "stale", door
