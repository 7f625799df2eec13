from pathlib import Path

import pytest

from data_catalog.storage.digests import file_records
from data_catalog.storage.manifest import (
    Manifest,
    ManifestError,
    content_digest,
    read_manifest,
    write_manifest,
)
from data_catalog.storage.receipts import (
    MANIFEST_NAME,
    Shard,
    invalidate,
    read_receipt,
    write_receipt,
)


def make_output(folder: Path) -> Manifest:
    (folder / "00000.npz").write_bytes(b"12345")
    shard = Shard(name="00000", rows=2, digest="d", files=file_records([folder / "00000.npz"]))
    write_receipt(folder, shard)
    manifest = Manifest(
        stage="encode",
        version=1,
        fingerprint="f",
        digest=content_digest([shard]),
        rows=2,
        shards=(shard,),
        figures={},
        settings={},
        parents={},
        made_by="run",
        made_at="now",
        seconds=1.0,
        folder=folder,
    )
    write_manifest(manifest)
    return manifest


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert make_output(tmp_path) == read_manifest(tmp_path)


def test_readers_refuse_an_output_whose_files_are_not_as_told(tmp_path: Path) -> None:
    make_output(tmp_path)
    (tmp_path / "00000.npz").write_bytes(b"123")
    with pytest.raises(ManifestError, match=r"00000\.npz has 3 bytes, not 5"):
        read_manifest(tmp_path)
    (tmp_path / "00000.npz").unlink()
    with pytest.raises(ManifestError, match="is missing"):
        read_manifest(tmp_path)
    assert read_receipt(tmp_path, "00000") is None, "a receipt of missing files is none"


def test_to_forget_removes_receipts_and_unfinished_work_but_no_finished_file(
    tmp_path: Path,
) -> None:
    make_output(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    invalidate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000.npz"]


def test_a_folder_does_not_enter_its_manifest(tmp_path: Path) -> None:
    make_output(tmp_path)
    assert str(tmp_path) not in (tmp_path / "manifest.json").read_text()


def test_a_forced_stage_empties_a_folder_behind_a_link_and_keeps_the_link(tmp_path: Path) -> None:
    """As checkpoints that lie on another disk."""
    output, disk = tmp_path / "output", tmp_path / "disk"
    (disk / "deep").mkdir(parents=True)
    for name in ("step-1.pt", "deep/file"):
        (disk / name).touch()
    (output / "samples").mkdir(parents=True)
    (output / "checkpoints").symlink_to(disk)
    invalidate(output)
    assert [path.name for path in output.iterdir()] == ["checkpoints"]
    assert not [path for path in disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", ["", "-1", "null", "[]", '"manifest"', "{}", '{"stage": 1}'])
def test_a_manifest_that_is_none_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(ManifestError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)
