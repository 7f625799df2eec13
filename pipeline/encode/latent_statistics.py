"""Statistics of latents and of their quantization error, per pair, per shard and over shards.

A shard stores sums, from which the statistics of any number of shards follow. Errors are in units
of σ, the standard deviation of the latents: an error of 0.02 σ is a fiftieth of it.
c channels   z latent size
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from data_catalog.latent_figures import LatentStatistics, LatentSums
from tld_model.quantize import Quantization, clipped_fraction, dequantize


def measure(latents: Tensor, stored: Tensor, quantization: Quantization) -> dict[str, Tensor]:
    """Measurements of each of b latents [b, c, z, z], on their device, so that nothing waits."""
    error = dequantize(stored, quantization) - latents
    return {
        "latent": latents.mean(dim=(2, 3)),  # [b, c]
        "latent_squared": latents.square().mean(dim=(2, 3)),  # [b, c]
        "largest": latents.abs().amax(dim=(2, 3)),  # [b, c]
        "squared_error": error.square().mean(dim=(1, 2, 3)),  # [b]
        "clipped": clipped_fraction(latents, quantization),  # [b]
    }


def sums_of(measured: dict[str, Tensor]) -> LatentSums:
    """Sums over the pairs of a shard in double precision; for `largest`, the maximum."""
    rows = len(measured["clipped"])
    if not rows:
        return LatentSums(rows=0)
    totals = {
        name: (values.amax(dim=0) if name == "largest" else values.double().sum(dim=0)).tolist()
        for name, values in measured.items()
    }
    return LatentSums(rows=rows, **totals)


def added(all_sums: Iterable[LatentSums]) -> LatentSums:
    """The sums of several shards as if they were one. Shards without rows are skipped."""
    filled = [sums for sums in all_sums if sums.rows]
    totals: dict[str, Any] = {}
    for name in LatentSums.model_fields:
        if any(getattr(sums, name) is None for sums in filled):
            totals[name] = None
            continue
        values = torch.tensor([getattr(sums, name) for sums in filled], dtype=torch.float64)
        totals[name] = (values.amax(dim=0) if name == "largest" else values.sum(dim=0)).tolist()
    return LatentSums(**totals)


def statistics_from(sums: LatentSums) -> LatentStatistics:
    """Quantization error, statistics of the latents and CLIP score, of one shard or of all."""
    rows = sums.rows
    means = [value / rows for value in sums.latent]
    squares = [value / rows for value in sums.latent_squared]
    mean = sum(means) / len(means)
    std = math.sqrt(max(sum(squares) / len(squares) - mean**2, 0.0))
    rmse = math.sqrt(sums.squared_error / rows)
    variances = [max(s - m**2, 0.0) for s, m in zip(squares, means, strict=True)]
    return LatentStatistics(
        quantization_rmse=rmse,
        quantization_rmse_sigma=rmse / std if std else 0.0,
        clipped_fraction=sums.clipped / rows,
        latent_mean=mean,
        latent_std=std,
        channel_std=tuple(map(math.sqrt, variances)),
        channel_largest=sums.largest,
        clip_score=None if sums.clip_score is None else sums.clip_score / rows,
    )
