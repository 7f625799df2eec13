"""Samples of a tar file in webdataset layout: members that share a key, such as 000123.jpg,
000123.txt and 000123.json.

Members are grouped by `webdataset`. Those that are no ordinary files are skipped, and the sizes in
the headers are checked before anything is read: a sparse member of a small file may claim
terabytes. The file may be compressed with gzip, bzip2 or xz.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

_UNPACKERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MOST_HEADER_BYTES = 1 << 20
_DAMAGE = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, KeyError, OverflowError, RecursionError, ValueError),
)
_BZ2_DAMAGE = "Invalid data stream"  # an OSError without a number
META_PREFIX = "__"  # of members that describe the whole file, by webdataset's convention


@dataclass(frozen=True, slots=True)
class TarSample:
    """The members of a tar file that share a key."""

    key: str
    members: dict[str, bytes | None]
    """Suffix in lower case -> content; None if it was not asked for or is too large. A suffix is
    what follows the first dot of a name: `jpg`, `txt`, `cropped.png`."""


class TarError(ValueError):
    """A tar file is damaged, or is not one."""


def tar_samples(
    stream: IO[bytes], most_bytes: int, is_needed: Callable[[str], bool] = lambda _: True
) -> Iterator[TarSample]:
    """The samples of an open tar file, in its order. Only members whose name `is_needed` and that
    have at most `most_bytes` are read; the others are skipped over where the file can seek.

    Raises TarError after the last sample before the damage.
    """
    from webdataset.tariterators import group_by_keys  # loads torch

    members = _members(stream, most_bytes, is_needed)
    # The first of two members of one name counts.
    for sample in group_by_keys(members, handler=lambda _: True):
        key = sample.pop("__key__")
        del sample["__url__"]
        yield TarSample(key, sample)


def split_name(name: str) -> tuple[str, str]:
    """The key and the suffix of a member, as in a TarSample. A name without a dot has no suffix."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _members(
    stream: IO[bytes], most_bytes: int, is_needed: Callable[[str], bool]
) -> Iterator[dict[str, Any]]:
    """Members as `webdataset.tariterators.tar_file_iterator` yields them."""
    bounded = _Bounded(_unpacked(stream), max(most_bytes, _MOST_HEADER_BYTES))
    try:
        with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
            for info in archive:
                name = info.name.removeprefix("./")
                if info.isreg() and not name.startswith(META_PREFIX):
                    data = None
                    if is_needed(name) and info.size <= most_bytes:
                        data = _content(archive, info)
                    yield {"fname": name, "data": data, "__url__": ""}
                # tarfile would keep every header in memory
                archive.members.clear()
            # The end is a block of zeros. tarfile takes a damaged header, or nothing, for it too.
            if bounded.last != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no valid header at byte {archive.offset}")
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or str(error) == _BZ2_DAMAGE:
            raise TarError(str(error)) from error
        raise
    except _DAMAGE as error:
        raise TarError(str(error) or type(error).__name__) from error


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    """The tar inside a file that is compressed as a whole."""
    head = stream.read(6)
    stream.seek(0)
    unpack = next((unpack for mark, unpack in _UNPACKERS.items() if head.startswith(mark)), None)
    return unpack(stream) if unpack else stream


@dataclass(slots=True)
class _Bounded:
    """A stream that refuses to read more at once than the largest member or header may have.
    tarfile reads the names in extended headers whole, and these may claim any size."""

    stream: IO[bytes]
    most_bytes: int
    last: bytes = b""
    """What was read last."""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.most_bytes + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        return self.stream.seek(place, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    member = archive.extractfile(info)
    content = member.read() if member else b""
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} is cut off")
    return content
