"""Images out of tars, whatever the tars are."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from pipeline.browse.shard_images import ShardImages


def write(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_an_image_is_found_by_its_key_alone(tmp_path: Path) -> None:
    write(
        tmp_path / "00000.tar",
        {
            "2.txt": b"two",
            "2.webp": b"second",
            "1.json": b"{}",
            "1.jpg": b"first",
            "10.png": b"tenth",
        },
    )
    images = ShardImages(tmp_path)
    assert [images.image("00000", key) for key in ("1", "2", "10")] == [
        *(found("jpg", b"first"), found("webp", b"second"), found("png", b"tenth"))
    ]
    assert images.image("00000", "3") is None
    assert images.image("00000", "1.jpg") is None
    assert images.image("00001", "1") is None


def found(suffix: str, content: bytes) -> object:
    from pipeline.browse.shard_images import StoredImage

    return StoredImage(suffix, content)


def test_a_tar_that_was_made_again_is_indexed_again(tmp_path: Path) -> None:
    write(tmp_path / "00000.tar", {"1.jpg": b"first"})
    images = ShardImages(tmp_path)
    assert images.image("00000", "1") == found("jpg", b"first")
    write(tmp_path / "00000.tar", {"0.jpg": b"0" * 5000, "1.jpg": b"another"})
    assert images.image("00000", "1") == found("jpg", b"another")


def test_damage_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(b"no tar" * 1000)
    write(tmp_path / "00001.tar", {"1.jpg": b"x" * 10_000})
    whole = (tmp_path / "00001.tar").read_bytes()
    (tmp_path / "00001.tar").write_bytes(whole[:5000])
    with tarfile.open(tmp_path / "00002.tar", "w") as tar:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    images = ShardImages(tmp_path)
    assert [images.image(f"0000{number}", "1") for number in range(3)] == [None] * 3
