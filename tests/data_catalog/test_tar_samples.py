"""Samples of tars, as strangers write them."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from data_catalog.tar_samples import TarError, TarSample, split_name, tar_samples
from tests.support.image_sets import write_members

MOST = 1 << 16


def samples(
    path: Path, most: int = MOST, needed: Callable[[str], bool] = lambda _: True
) -> list[TarSample]:
    with path.open("rb") as stream:
        return list(tar_samples(stream, most, needed))


def test_members_that_share_a_key_are_a_sample(tmp_path: Path) -> None:
    members = [("a/1.JPG", b"x"), ("a/1.mask.png", b"m"), ("2.jpg", b"y"), ("__meta.json", b"{}")]
    tar = write_members(tmp_path / "a.tar", members)
    assert samples(tar) == [
        TarSample("a/1", {"jpg": b"x", "mask.png": b"m"}),
        TarSample("2", {"jpg": b"y"}),
    ]
    assert split_name("a/1.mask.PNG") == ("a/1", "mask.png")


def test_what_is_too_large_or_not_needed_is_not_read(tmp_path: Path) -> None:
    members = [("1.jpg", b"x" * 100), ("1.txt", b"t"), ("1.json", b"{}")]
    tar = write_members(tmp_path / "a.tar", members)
    (sample,) = samples(tar, 50, lambda name: not name.endswith("json"))
    assert sample.members == {"jpg": None, "txt": b"t", "json": None}


def test_the_first_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    tar = write_members(tmp_path / "a.tar", [("1.jpg", b"first"), ("1.jpg", b"second")])
    assert samples(tar) == [TarSample("1", {"jpg": b"first"})]


def test_links_folders_and_devices_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert samples(path) == []


def test_a_sparse_member_that_claims_terabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("1.jpg")
        sparse = {"GNU.sparse.map": f"0,0,{1 << 42},0", "GNU.sparse.size": str(1 << 42)}
        info.pax_headers = sparse
        archive.addfile(info, io.BytesIO())
    assert samples(path) == [TarSample("1", {"jpg": None})]


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(TarError, match="a header of"):
        samples(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.tar", [(f"{n}.jpg", b"x") for n in range(4)])
    content = bytearray(path.read_bytes())
    content[2 * 1024 + 100] ^= 1  # the mode in the third header
    path.write_bytes(content)
    with pytest.raises(TarError, match="no valid header at byte 2048"):
        samples(path)
    for end in (2 * 1024, 2 * 1024 + 100, 2 * 1024 + 512, 3 * 1024):
        path.write_bytes(content[:end])
        with pytest.raises(TarError):
            samples(path)


def test_headers_within_headers_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8
    path = tmp_path / "a.tar"
    path.write_bytes((info.tobuf() + b"name".ljust(512, b"\0")) * 2000)
    with pytest.raises(TarError):
        samples(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_damage_anywhere_is_a_tar_error_after_what_came_before(tmp_path: Path, mode: str) -> None:
    members = [(f"{n}.{kind}", bytes([n]) * 700) for n in range(20) for kind in ("jpg", "txt")]
    path = write_members(tmp_path / "a.tar", members, mode)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 30):
        broken = bytearray(whole)
        broken[place : place + 40] = bytes(b ^ 0x5A for b in broken[place : place + 40])
        for content in (bytes(broken), whole[:place]):
            path.write_bytes(content)
            with suppress(TarError):
                assert len(samples(path)) <= 20
