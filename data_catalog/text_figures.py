"""Figures of text: how captions became embeddings, and the error of stored token states."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from data_catalog.storage.manifest import StoredValues

TokenDtype = Literal["uint8", "float16"]


class TextFigures(StoredValues):
    """The text encoder of an output, with all that determines its embeddings."""

    name: str
    """Name or folder of the model."""
    identity: str
    """What distinguishes this model from others, whatever its name."""
    tokens: int
    """Tokens of the longest caption; longer ones were truncated."""
    template: str
    """What was encoded of a caption, which took the place of {}."""
    pooling: str
    """How one vector was made of a caption: projection, mean, first or last."""
    normalized: bool
    """Whether pooled embeddings have length 1."""
    layer: int | None = None
    """Number of the layer whose hidden states were taken, from 1; None for the model's output."""
    end: int | None = None
    """Token that was appended to captions that did not end with it."""
    padding: str = "right"
    """Side of a caption on which its padding was."""


class TokenSums(StoredValues):
    """Sums over the tokens of a shard's distinct captions."""

    tokens: int
    """Tokens."""
    squared_error: float
    """Of the mean square error of a token's stored state."""
    squared_deviation: float
    """Of the mean square of what a state differs by from the shard's mean, channel by channel."""


class TokenStatistics(StoredValues):
    """The error of stored token states."""

    dtype: TokenDtype
    """Number format of the stored states."""
    rmse: float
    """Root mean square error of a stored state."""
    std: float
    """Root mean square of what a state differs by from the mean of its channel."""
    rmse_sigma: float
    """The error in units of that."""


def token_statistics(dtype: TokenDtype, shards: Iterable[TokenSums]) -> TokenStatistics | None:
    """The statistics of all shards; None if they hold no token."""
    sums = list(shards)
    if not (count := sum(shard.tokens for shard in sums)):
        return None
    rmse = math.sqrt(sum(shard.squared_error for shard in sums) / count)
    std = math.sqrt(sum(shard.squared_deviation for shard in sums) / count)
    return TokenStatistics(dtype=dtype, rmse=rmse, std=std, rmse_sigma=rmse / std if std else 0.0)
