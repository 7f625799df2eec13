"""Who writes an output in object storage, and what of it is there: on fsspec's storage in
memory."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from data_catalog.storage import cached_files as stored
from data_catalog.storage import lease as leases
from data_catalog.storage import object_store
from data_catalog.storage import uploader as uploads
from data_catalog.storage.cached_files import RemoteRecord, fetch, push
from data_catalog.storage.lease import LeaseTaken, claim
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.object_store import ObjectStore
from data_catalog.storage.receipts import MANIFEST_NAME, invalidate
from data_catalog.storage.uploader import Uploader
from pipeline.config.load import load_config
from pipeline.stages.remote_workspace import exclusive_output
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"memory://{uuid4()}", tmp_path)


@pytest.fixture
def folder(store: ObjectStore) -> Path:
    folder = store.root / "02_encodings" / "abc"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def keeping(store: ObjectStore, folder: Path) -> Uploader:
    return Uploader(store, claim(store.url_of(folder), folder), 0, print)


def test_a_holder_that_wakes_long_after_knows_that_a_later_one_has_its_number(
    store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENCE_S", 0.2)
    url = store.url_of(folder)
    asleep = claim(url, folder)
    claim(url, tmp_path / "heir").release()
    third = claim(url, tmp_path / "third")
    assert third.number == asleep.number
    with pytest.raises(LeaseTaken, match="was taken over"):
        asleep.touch()
    asleep.release()
    third.touch()


def test_a_lease_that_is_followed_while_it_is_read_is_not_taken_for_none(
    store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENCE_S", 0.2)
    url = store.url_of(folder)
    claim(url, folder)
    memory = type(fsspec.filesystem("memory"))
    cat = memory.cat_file

    def late(self: object, path: str) -> object:
        monkeypatch.setattr(memory, "cat_file", cat)
        assert claim(url, folder).number == 2
        return cat(self, path)

    monkeypatch.setattr(memory, "cat_file", late)
    assert claim(url, tmp_path / "another").number == 3, "once the second was silent"


def test_a_lease_is_touched_however_long_its_holder_fetches_or_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENCE_S", 0.4)
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    config = load_config(TINY, small(f"memory://{uuid4()}", cache__folder=tmp_path))
    folder = config.folder / "03_model" / "abc"
    folder.mkdir(parents=True)

    def others_come(*_: object, **__: object) -> None:
        with pytest.raises(LeaseTaken, match="is being made by"):
            claim(f"{config.root}/03_model/abc", tmp_path / "other")

    monkeypatch.setattr(ObjectStore, "refresh", others_come)
    monkeypatch.setattr(uploads, "push", others_come)
    with exclusive_output(config, folder, RememberingTracker()):
        (folder / "checkpoint.pt").touch()


def test_a_manifest_whose_writing_was_not_confirmed_is_ours(
    keeping: Uploader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / MANIFEST_NAME).write_text("{}")

    def lost(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise OSError("the network is down")

    monkeypatch.setattr(stored, "version_of", lost)
    keeping.finish(pauses_s=(0,))
    assert stored.is_copy(folder / MANIFEST_NAME)


def test_a_file_that_its_stage_deletes_while_it_is_pushed_is_no_failure(
    keeping: Uploader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "checkpoint.pt").write_bytes(b"old")
    (folder / "00000_stats.json").write_text("{}")

    def late(path: Path, url: str, new: bool = False) -> None:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        push(path, url, new=new)

    monkeypatch.setattr(uploads, "push", late)
    keeping.push()
    assert fsspec.filesystem("memory").exists(keeping.store.url_of(folder / "00000_stats.json"))


def test_a_copy_that_goes_while_copies_are_counted_is_none(
    store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00000.npz", "00001.npz"):
        (folder / name).write_bytes(b"content")
        push(folder / name, store.url_of(folder / name))

    def gone_now(_path: Path) -> bool:
        (folder / "00000.npz").unlink(missing_ok=True)
        return True

    monkeypatch.setattr(object_store, "is_copy", gone_now)
    assert store.evict(100) == len(b"content")


def test_what_could_not_be_fetched_leaves_nothing_on_a_full_disk(
    store: ObjectStore, folder: Path
) -> None:
    (folder / "00000.npz").write_bytes(b"content")
    pushed = store.url_of(folder / "00000.npz")
    push(folder / "00000.npz", pushed)
    copies = [
        (folder / name, RemoteRecord(url, 7, ""))
        for name, url in (("a", pushed), ("b", f"{pushed}.not-there"))
    ]
    with pytest.raises(ObjectStorageError):
        fetch(copies)
    assert [path.name for path in (folder / stored.RECORDS_FOLDER).iterdir()] == ["00000.npz"]


def test_what_a_forced_stage_forgets_does_not_come_back_from_the_storage(
    keeping: Uploader, store: ObjectStore, folder: Path
) -> None:
    checkpoint, model = folder / "checkpoints" / "step-00000009.pt", folder / "denoiser.safetensors"
    checkpoint.parent.mkdir()
    for path in (checkpoint, model):
        path.write_bytes(b"content")
    keeping.push()
    invalidate(folder)
    store.refresh(folder, store.listed(folder), everything=True)
    assert not checkpoint.exists(), "the training would go on from there"
    assert model.exists(), "until it is replaced"


def test_a_mark_that_a_failing_disk_changed_is_written_anew(
    store: ObjectStore, folder: Path
) -> None:
    path = folder / "00000.npz"
    path.write_bytes(b"latents")
    push(path, store.url_of(path))
    stored.remote_record_path(path).write_bytes(b'{"url\xff')
    assert stored.read_remote_record(path) is None
    store.refresh(folder, store.listed(folder))
    assert stored.read_remote_record(path) == store.listed(folder)[path]
    assert stored.ensure_local(path).read_bytes() == b"latents"
