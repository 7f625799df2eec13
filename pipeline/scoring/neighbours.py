"""Nearest neighbours by the cosine of image features, and the rank of a true one.

q queries   n candidates   d feature width
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_QUERIES = 256  # at a time, which bounds memory


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest candidate of each query."""

    index: NDArray[np.int64]  # [q], among the candidates
    cosine: NDArray[np.float32]  # [q]


def nearest(queries: Tensor, candidates: Tensor) -> Neighbours:
    """The nearest of candidates [n, d] to each query [q, d]; of equally near ones the first."""
    best = [cosines.max(1) for cosines in _cosines(queries, candidates)]
    index = torch.cat([part.indices for part in best])
    return Neighbours(index.numpy(), torch.cat([part.values for part in best]).numpy())


def ranks(queries: Tensor, candidates: Tensor, true: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of other candidates [n, d] that are at least as near to each query [q, d] as its
    true one, which is true[i]: 0 if it is the nearest. An equally near one counts against it, so
    that features which are all alike find nothing."""
    parts, start = list[Tensor](), 0
    for cosines in _cosines(queries, candidates):
        own = torch.from_numpy(true[start : start + len(cosines)])[:, None]
        parts.append((cosines >= cosines.gather(1, own)).sum(1) - 1)  # without itself
        start += len(cosines)
    return torch.cat(parts).numpy()


def _cosines(queries: Tensor, candidates: Tensor) -> Iterator[Tensor]:
    """The cosines of some queries at a time with all candidates: float32 [≤ q, n]."""
    unit = F.normalize(candidates.float(), dim=1)
    for part in queries.split(_QUERIES):
        yield F.normalize(part.float(), dim=1) @ unit.T
