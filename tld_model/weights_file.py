"""Validation of safetensors headers: an untrusted header is checked against its file before use."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LARGEST_HEADER = 16 * 2**20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """The shapes of a file's weights, and its metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_weights_header(path: Path) -> WeightsHeader:
    """Read and check the header of a safetensors file.

    Raises:
        ValueError: the header is damaged or does not match the file.
        OSError: the file cannot be opened or read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"its header would have {length} bytes, but the file has {size}")
        raw = file.read(length)
    try:
        header: Any = json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its metadata is not text")
    shapes = {name: _shape(name, entry, size - 8 - length) for name, entry in header.items()}
    return WeightsHeader(shapes, metadata)


def _shape(name: str, entry: Any, size: int) -> tuple[int, ...]:
    """The shape of a tensor that lies within `size` bytes of data."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise ValueError(f"its header does not describe {name[:100]!r}")
    if dtype not in _BYTES:
        raise ValueError(
            f"{name[:100]!r} is of type {dtype[:20]!r}; weights are {', '.join(_BYTES)}"
        )
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"{name[:100]!r} has an invalid shape")
    if not 0 <= start <= end <= size or end - start != math.prod(shape) * _BYTES[dtype]:
        raise ValueError(f"{name[:100]!r} does not have the size of its place in the file")
    return tuple(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("its header contains a name twice")
    return unique
