"""Images of a shard that cannot be decoded, found in a process that they may crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from data_catalog.images import PackedPair, decode, read_packed_pairs
from pipeline.compute.isolated_process import Budget, Isolated, Refused

_BUDGET = Budget(cpu_s=10, memory=1 << 30)


def unreadable(tar: Path, edge: int | None) -> list[dict[str, str]]:
    """Key, URL, caption and reason of each unreadable image. Raises ManifestError if the tar is
    damaged."""
    with closing(Isolated(partial(_decode_problem, edge), _BUDGET)) as isolated_decoder:
        return list(_unreadable_rows(tar, isolated_decoder))


def _unreadable_rows(tar: Path, isolated_decoder: Isolated[str]) -> Iterator[dict[str, str]]:
    for pair in read_packed_pairs(tar):
        try:
            reason = isolated_decoder(pair.image_file)
        except Refused as cause:
            reason = str(cause)
        if reason:
            yield _row(pair, reason)


def _row(pair: PackedPair, reason: str) -> dict[str, str]:
    return {"key": pair.key, "url": pair.facts.url, "caption": pair.caption, "reason": reason}


def _decode_problem(edge: int | None, data: bytes) -> str:
    image = decode(data, edge)
    return image if isinstance(image, str) else ""
