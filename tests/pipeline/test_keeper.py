"""Who writes an output in object storage, and what of it is there: on fsspec's storage in memory."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from data_catalog import stored
from data_catalog.manifest import MANIFEST_NAME
from data_catalog.object_store import ObjectStore
from pipeline import keeper
from pipeline.config import load_config
from pipeline.keeper import HeldElsewhere, Keeper, claim
from pipeline.object_root import written_alone
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
def keeping(store: ObjectStore, folder: Path) -> Keeper:
    return Keeper(store, claim(store.url_of(folder), folder), 0, print)


def test_a_holder_that_wakes_long_after_knows_that_a_later_one_has_its_number(
    store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SILENCE_S", 0.2)
    url = store.url_of(folder)
    asleep = claim(url, folder)
    claim(url, tmp_path / "heir").release()
    third = claim(url, tmp_path / "third")
    assert third.number == asleep.number
    with pytest.raises(HeldElsewhere, match="was taken over"):
        asleep.touch()
    asleep.release()
    third.touch()


def test_a_lease_is_touched_however_long_its_holder_fetches_or_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SILENCE_S", 0.4)
    monkeypatch.setattr(keeper, "BEAT_S", 0.05)
    config = load_config(TINY, small(f"memory://{uuid4()}", cache__folder=tmp_path))
    folder = config.folder / "03_model" / "abc"
    folder.mkdir(parents=True)

    def others_come(*_: object, **__: object) -> None:
        with pytest.raises(HeldElsewhere, match="is being made by"):
            claim(f"{config.root}/03_model/abc", tmp_path / "other")

    monkeypatch.setattr(ObjectStore, "refresh", others_come)
    monkeypatch.setattr(keeper, "push", others_come)
    with written_alone(config, folder, RememberingTracker()):
        (folder / "checkpoint.pt").touch()


def test_a_manifest_whose_writing_was_not_confirmed_is_ours(
    keeping: Keeper, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / MANIFEST_NAME).write_text("{}")

    def lost(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise OSError("the network is down")

    monkeypatch.setattr(stored, "version_of", lost)
    keeping.finish(pauses_s=(0,))
    assert stored.is_copy(folder / MANIFEST_NAME)
