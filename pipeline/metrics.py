"""Scores of samples on CLIP features. Knows embeddings, not where they come from.

n, m samples   d embedding width; all arithmetic in float64
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clip_scores(images: Tensor, text: Tensor) -> Tensor:
    """100 x cosine of image and caption embeddings, [n, d] and [n, d] -> [n] (Hessel et al., 2021, without
    its factor 2.5 and its floor at 0)."""
    return 100 * F.cosine_similarity(images.double(), text.double())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to embeddings [n, d] and [m, d] (Heusel et al.,
    2017, eq. 6). On CLIP features its numbers don't compare with those of Inception FID, and with few
    samples it is biased upwards: compare runs of the same n only."""
    a, b = a.double(), b.double()
    difference = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T

    # tr sqrt(A B) = tr sqrt(sqrt(A) B sqrt(A)), whose argument is symmetric
    trace_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    return max(0.0, float(difference + cov_a.trace() + cov_b.trace() - 2 * trace_root))


def cmmd(a: Tensor, b: Tensor) -> float:
    """CMMD (Jayasumana et al., 2024): 1000 x squared maximum mean discrepancy of normalized CLIP
    embeddings [n, d] and [m, d], Gaussian kernel of bandwidth 10. Needs no Gaussian fit, and few samples."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)

    def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / (2 * 10**2)).mean()

    return float(1000 * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)))
