"""A workspace in object storage, as two machines type it: a folder of copies for each, one S3
server for both."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.storage import lease
from data_catalog.storage.cached_files import ensure_local, is_remote_only, push
from data_catalog.storage.lease import LeaseTaken, claim
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.object_store import ObjectStore
from data_catalog.storage.uploader import Uploader
from flows.cli.runs import runs
from flows.orchestration.prefect_server import free_port
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.encode.stage import encode
from pipeline.maintenance.cleanup import find_unneeded, remove
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.remote_workspace import (
    NoRoomForCopies,
    exclusive_output,
    fetch_output,
    sync_listing,
)
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.support import command
from tests.support.command import tld
from tests.support.object_server import object_server
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_images_of, make_workspace, overrides

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # aiobotocore's connections
]


@pytest.fixture(scope="module", autouse=True)
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """On an S3 server of its own, which is told of as the environment of a user tells it."""
    with (
        object_server(tmp_path_factory.mktemp("server"), "tld", "key", command.CANARY) as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        told = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": command.CANARY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in told.items():
            patch.setenv(name, value)
            patch.setitem(command.ENVIRONMENT, name, value)
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("tld")
        yield "s3://tld"


def on(machine: Path, root: str, **changed: object) -> list[str]:
    """What describes a run on one machine."""
    return overrides(root, cache__folder=machine, **changed)


def made_on(machine: Path, root: str, **changed: object) -> RunConfig:
    return make_workspace(root, cache__folder=machine, **changed)


def objects(root: str) -> list[str]:
    files = fsspec.filesystem("s3", use_listings_cache=False)
    return sorted(str(name).removeprefix(root.removeprefix("s3://")) for name in files.find(root))


def digests(config: RunConfig) -> list[str]:
    return [
        status.manifest.digest
        for status in stage_statuses(RunInputs(config)).values()
        if status.manifest
    ]


@pytest.fixture(scope="module")
def config(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of which one machine made all but the report."""
    return made_on(tmp_path_factory.mktemp("first"), f"{bucket}/shared")


@pytest.fixture
def first(config: RunConfig) -> list[str]:
    """What that machine types."""
    return on(config.cache.folder, config.root)


def test_all_that_a_run_makes_lies_in_the_storage(config: RunConfig, tmp_path: Path) -> None:
    there = objects(config.root)
    stages = [name.split("/")[1] for name in there if name.endswith("/manifest.json")]
    assert sorted(stages) == ["01_images", "02_encodings", "03_model"]
    assert any(name.endswith("/00001.npz") for name in there)
    assert not [name for name in there if ".partial" in name or "/." in name], (
        "leases are given back"
    )
    files = fsspec.filesystem("s3")
    assert not [
        name for name in there if command.CANARY.encode() in files.cat_file(config.root + name)
    ]
    assert digests(make_workspace(tmp_path / "data")) == digests(config)


def test_the_runs_in_the_storage_are_listed(
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    runs(root=config.root, as_json=True)
    (run,) = json.loads(capsys.readouterr().out)
    manifests = [json.loads(Path(one, "manifest.json").read_text()) for one in run["outputs"]]
    assert [one["stage"] for one in manifests] == ["download", "encode", "train"]
    assert run["bytes"] > sum(
        record["bytes"]
        for one in manifests
        for s in one["shards"]
        for record in s["files"].values()
    )


def test_another_machine_computes_nothing_again_and_fetches_what_it_reads(
    config: RunConfig, tmp_path: Path
) -> None:
    typed, before = on(tmp_path, config.root), objects(config.root)
    rows = json.loads(tld("status", TINY, *typed, "--json").stdout)
    assert [row["state"] for row in rows] == ["fresh", "fresh", "fresh", "missing"]
    made_on(tmp_path, config.root)
    assert objects(config.root) == before
    assert not list(tmp_path.glob("*/0*/*/0*.*z")), "nobody read them"
    assert not list(tmp_path.glob("*/0*/*/*.tar"))
    drawn = tld(
        "sample",
        TINY,
        "a small red star in the center",
        *typed,
        "--count",
        "1",
        "--out",
        tmp_path / "star.png",
    )
    assert drawn.returncode == 0, drawn.stderr
    assert list(tmp_path.glob("*/03_model/*/denoiser.safetensors"))
    assert not list(tmp_path.glob("*/0*/*/*.tar"))


def die_while_encoding(root: str, machine: Path) -> None:
    """In a process of its own: encode one shard, wait until it is in the storage, and be killed."""
    lease.BEAT_S = 0.1
    config = load_config(TINY, on(machine, root))
    images = stage_statuses(RunInputs(config))["download"].manifest
    assert images

    def one_alone(
        make_worker: Any, items: Any, workers: int, deadline_s: float | None = None
    ) -> Iterator[Any]:
        del workers, deadline_s
        yield make_worker()(next(iter(items)))
        while not any(
            "02_encodings" in name and name.endswith("_stats.json") for name in objects(root)
        ):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    track = RememberingTracker()
    parents = {"download": images}
    run_stage(
        RunInputs(config).stage_run("encode", parents),
        track,
        lambda out: encode(images, config.encode, out, track, one_alone),
    )


def test_a_machine_goes_on_where_another_was_killed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, machine, heir = f"{bucket}/killed", tmp_path / "a", tmp_path / "b"
    config = load_config(TINY, on(machine, root))
    make_images_of(config)
    dying = multiprocessing.get_context("spawn").Process(
        target=die_while_encoding, args=(root, machine)
    )
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    (left,) = [
        name for name in objects(root) if name.endswith("00000_stats.json") and "02_enc" in name
    ]
    version = fsspec.filesystem("s3", use_listings_cache=False).info(root + left)["ETag"]

    monkeypatch.setattr(lease, "SILENCE_S", 0.5)
    made = made_on(heir, root)
    assert fsspec.filesystem("s3", use_listings_cache=False).info(root + left)["ETag"] == version
    assert not list(heir.glob("*/02_encodings/*/00000.npz")), (
        "encoded by the other, and not read yet"
    )
    assert digests(made) == digests(make_workspace(tmp_path / "data"))


def test_two_machines_do_not_write_one_output(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{bucket}/two/02_encodings/abc"
    mine = claim(output, tmp_path / "a")
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.05):
            mine.touch()

    alive = threading.Thread(target=live)
    alive.start()
    with pytest.raises(LeaseTaken, match=r"is being made by .* \(process \d+, since 20"):
        claim(output, tmp_path / "b")
    stop.set()
    alive.join()

    monkeypatch.setattr(lease, "SILENCE_S", 0.5)
    heir = claim(output, tmp_path / "b")  # it fell silent
    with pytest.raises(LeaseTaken, match="was taken over"):
        mine.touch()
    heir.touch()
    monkeypatch.setattr(lease, "SILENCE_S", 600)
    claim(output, tmp_path / "b").release()  # of our own folder, whose lock we hold: at once


def test_a_manifest_is_never_written_over_another(config: RunConfig, tmp_path: Path) -> None:
    (path,) = config.folder.glob("02_encodings/*/manifest.json")
    url, other = ObjectStore(config.root, config.folder).url_of(path), tmp_path / path.name
    push(path, url, new=True)  # again, where the answer was lost
    other.write_text("another")
    with pytest.raises(FileExistsError):
        push(other, url, new=True)


def test_copies_go_when_the_cache_is_full_and_come_back_when_they_are_read(
    config: RunConfig,
) -> None:
    store = ObjectStore(config.root, config.folder)
    (path,) = config.folder.glob("02_encodings/*/00000.npz")
    content = path.read_bytes()
    copies = [copy for copy in config.folder.glob("0*/*/*") if copy.is_file()]
    for copy in copies:
        os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))
    assert store.evict(0) > 0, "those in use stay"
    assert path.exists()
    for copy in copies:
        os.utime(copy, ns=(0, copy.stat().st_mtime_ns))
    assert store.evict(0) == 0
    assert is_remote_only(path, len(content))
    assert stage_statuses(RunInputs(config))["encode"].state == "fresh"
    assert ensure_local(path).read_bytes() == content
    manifest = stage_statuses(RunInputs(config))["encode"].manifest
    assert isinstance(manifest, Manifest)
    tight = config.model_copy(update={"cache": config.cache.model_copy(update={"max_gb": 1e-6})})
    with pytest.raises(NoRoomForCopies, match=r"cache\.max_gb=1e-06 is too small"):
        fetch_output(manifest, tight, RememberingTracker())
    assert fetch_output(manifest, config, RememberingTracker()) is manifest


def test_a_damaged_copy_is_fetched_anew(first: list[str], config: RunConfig) -> None:
    manifest = stage_statuses(RunInputs(config))["encode"].manifest
    assert isinstance(manifest, Manifest)
    path = manifest.file("00001.npz")
    whole = ensure_local(path).read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = tld("catalog", "verify", TINY, *first)
    assert found.returncode == 0, found.stdout + found.stderr
    assert path.read_bytes() == whole


def test_what_no_run_needs_goes_from_the_storage(bucket: str, tmp_path: Path) -> None:
    kept = made_on(tmp_path, f"{bucket}/cleaned")
    made_on(tmp_path, kept.root, encode__latent_clip=3.0)
    before = objects(kept.root)
    waste = find_unneeded([kept], others=True)
    assert {item.output.parent.name for item in waste} == {"02_encodings", "03_model"}
    assert all(remove(item, kept) for item in waste)
    after = objects(kept.root)
    assert len([name for name in after if name.endswith("/manifest.json")]) == 3
    assert set(after) < set(before)
    assert [status.state for status in stage_statuses(RunInputs(kept)).values()][:3] == [
        "fresh"
    ] * 3


def test_what_a_user_gets_wrong_is_told_before_work(bucket: str, tmp_path: Path) -> None:
    nowhere = tld("run", TINY, *on(tmp_path, "s3://no-such-bucket/x"))
    assert nowhere.returncode == 2, nowhere.stderr
    assert "root: object storage failed at s3://no-such-bucket/x" in nowhere.stderr
    several = (
        "train.launch.nodes=2",
        "train.launch.rendezvous=127.0.0.1:1",
        "engine.kind=ray",
        "engine.address=h:1",
    )
    apart = tld("run", TINY, *on(tmp_path, f"{bucket}/x"), *several)
    assert apart.returncode == 2
    assert "train.launch.nodes: 2 machines cannot train with root s3://tld/x" in apart.stderr
    assert "engine.address: nodes of a cluster" in apart.stderr
    unknown = tld("run", TINY, *on(tmp_path, "s4://bucket/x"))
    assert unknown.returncode == 2
    assert "s4" in unknown.stderr
    secret = tld("run", TINY, *on(tmp_path, f"s3://me:{command.CANARY}@{bucket[5:]}/x"))
    assert secret.returncode == 2
    assert command.CANARY not in secret.stderr


def test_a_url_table_may_lie_there_too(bucket: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("s3")
    with files.open(f"{bucket}/tables/urls.parquet", "wb") as file:
        parquet.write_table(
            pa.table({"url": ["https://a.example/1.jpg"] * 3, "caption": ["a", "b", "c"]}), file
        )
    plan = tld(
        "download",
        TINY,
        *overrides(tmp_path),
        f"download.urls={bucket}/tables/urls.parquet",
        "--plan",
    )
    assert plan.returncode == 0, plan.stderr
    assert "3" in plan.stdout


def test_a_shard_that_was_let_go_stays_in_the_storage_and_a_deleted_checkpoint_does_not(
    bucket: str, tmp_path: Path
) -> None:
    store = ObjectStore(f"{bucket}/room", tmp_path)
    folder = tmp_path / "02_encodings" / "abc"
    shard, checkpoint = folder / "00000.npz", folder / "checkpoints" / "step-1.pt"
    checkpoint.parent.mkdir(parents=True)
    for path in (shard, checkpoint):
        path.write_bytes(b"content")
    keeping = Uploader(store, claim(store.url_of(folder), folder), 0, print)
    keeping.push()
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns))
    assert store.evict(0) <= len(b"content")
    assert not shard.exists()
    checkpoint.unlink()
    keeping.push()
    assert objects(store.url) == [
        "/02_encodings/abc/.leases/00000001",
        "/02_encodings/abc/00000.npz",
    ]
    assert ensure_local(shard).read_bytes() == b"content"


def test_pictures_that_were_let_go_on_purpose_are_so_for_another_machine_too(
    bucket: str, tmp_path: Path
) -> None:
    kept = made_on(tmp_path / "a", f"{bucket}/released", encode__keep_images="false")
    assert not [name for name in objects(kept.root) if name.endswith(".tar")]
    other = load_config(TINY, on(tmp_path / "b", kept.root, encode__keep_images="false"))
    assert [status.state for status in stage_statuses(RunInputs(other)).values()][:3] == [
        "fresh"
    ] * 3


def test_storage_that_is_away_for_a_while_costs_a_warning(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    folder, track = config.folder / "02_encodings" / "away", RememberingTracker()
    folder.mkdir()
    with exclusive_output(config, folder, track):
        with pytest.MonkeyPatch.context() as away:
            away.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
            fsspec.filesystem("s3").clear_instance_cache()
            (folder / "00000.npz").write_bytes(b"content")
            with pytest.raises(
                ObjectStorageError, match="object storage failed at s3://tld/shared"
            ):
                sync_listing(config)
            while not track.warnings:
                time.sleep(0.1)
        fsspec.filesystem("s3").clear_instance_cache()
    assert "the work continues" in track.warnings[0]
    assert [name for name in objects(config.root) if "/away/" in name] == [
        "/02_encodings/away/00000.npz"
    ]
