"""Samples of a tar file in webdataset layout: members that share a key, such as 000123.jpg,
000123.txt and 000123.json.

Members are grouped by `webdataset`. Those that are no ordinary files are skipped, and the sizes in
the headers are checked before anything is read: a sparse member of a small file may claim
terabytes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

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
    stream: IO[bytes], most_bytes: int, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[TarSample]:
    """The samples of an open tar file, in its order. Only members whose name is `wanted` and that
    have at most `most_bytes` are read; the others are skipped over where the file can seek.

    Raises TarError after the last sample before the damage.
    """
    from webdataset.tariterators import group_by_keys  # loads torch

    members = _members(stream, most_bytes, wanted)
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
    stream: IO[bytes], most_bytes: int, wanted: Callable[[str], bool]
) -> Iterator[dict[str, Any]]:
    """Members as `webdataset.tariterators.tar_file_iterator` yields them."""
    try:
        with tarfile.open(fileobj=stream, mode="r:*") as archive:
            for info in archive:
                if info.isreg() and not info.issparse() and not info.name.startswith(META_PREFIX):
                    data = None
                    if wanted(info.name) and info.size <= most_bytes:
                        data = _content(archive, info)
                    yield {"fname": info.name, "data": data, "__url__": ""}
                # tarfile would keep every header in memory
                archive.members.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, KeyError, OverflowError, ValueError) as error:
        raise TarError(str(error)) from error


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    member = archive.extractfile(info)
    content = member.read() if member else b""
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} is cut off")
    return content
