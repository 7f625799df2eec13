"""Checks that the arrays of an encoded shard fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FURTHER_LATENTS = {"flipped", "latents_spread", "flipped_spread"}


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


def check_further_latents(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError if further arrays of latents do not have the form of the latents, or a
    spread is there for some of them only."""
    latents = arrays["latents"]
    for name in FURTHER_LATENTS & arrays.keys():
        dtype = latents.dtype if name == "flipped" else np.dtype(np.uint8)
        if (arrays[name].shape, arrays[name].dtype) != (latents.shape, dtype):
            raise ValueError(
                f"{name} is {arrays[name].dtype} {arrays[name].shape}, but latents are "
                f"{latents.dtype} {latents.shape}"
            )
    has_spread = "latents_spread" in arrays and "flipped" in arrays
    if ("flipped_spread" in arrays) != has_spread:
        raise ValueError("flipped_spread must come with flipped and latents_spread")
