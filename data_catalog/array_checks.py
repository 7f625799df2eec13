"""Checks that the arrays of an encoded shard fit each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_starts(name: str, starts: NDArray[np.int64] | None, parts: int, end: int) -> None:
    """Raise ValueError if start offsets do not divide the rows among the parts."""
    if starts is None:
        return
    if (
        len(starts) != parts + 1
        or starts[0] != 0
        or starts[-1] != end
        or (starts[1:] < starts[:-1]).any()
    ):
        raise ValueError(f"{name} does not divide {end} rows among {parts}")


def check_alike(name: str, array: NDArray[Any] | None, latents: NDArray[Any]) -> None:
    """Raise ValueError if an array does not have the form of the latents."""
    if array is not None and (array.shape, array.dtype) != (latents.shape, latents.dtype):
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}, but latents are {latents.dtype} "
            f"{latents.shape}"
        )
