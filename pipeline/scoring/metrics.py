"""Image metrics on CLIP embeddings: CLIP score, diversity, Frechet distance, CMMD, kernel distance.

A statistic takes how often each row counts: once by default, other numbers when a bootstrap draws
rows with replacement (pipeline/scoring/bootstrap.py).

n, m samples   d embedding width   r resamplings; all arithmetic in float64
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Counts = NDArray[np.int64]  # [r, n]: how often each of n rows counts, in each of r resamplings
Values = NDArray[np.float64]  # [r]
Statistic = Callable[[Counts], Values]


def clip_scores(images: Tensor, text: Tensor) -> Tensor:
    """100 x cosine of image and caption embeddings, [n, d] and [n, d] -> [n] (Hessel et al., 2021,
    without its factor 2.5 and its floor at 0)."""
    return 100 * F.cosine_similarity(images.double(), text.double())


def diversity(images: Tensor) -> Tensor:
    """The variety of samples of the same prompt: 100 x mean of 1 - cosine over all pairs of k
    samples, embeddings [n, k, d] -> [n]. It is 0 if the noise changes nothing. Guidance trades this
    variety within a prompt for fidelity (Ho and Salimans, 2022); distances between whole sets can
    hide its loss behind the variety of captions."""
    unit = F.normalize(images.double(), dim=2)
    k = unit.shape[1]
    if k < 2:
        raise ValueError(f"diversity needs at least 2 samples per prompt, got {k}")
    # |sum of unit vectors|^2 = k + 2 x sum of cosines over pairs
    cosines = (unit.sum(1).square().sum(1) - k) / (k * (k - 1))
    return 100 * (1 - cosines)


def mean_statistic(values: NDArray[np.float64]) -> Statistic:
    """The mean of one value per row [n]."""
    return lambda counts: counts @ values / counts.sum(1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to embeddings [n, d] and [m, d] (Heusel et
    al., 2017, eq. 6). On CLIP features its values are not comparable with Inception FID. With few
    samples it is biased upwards, so compare only runs with the same n."""
    return _frechet(*_fit(a.double(), _once(a)), *_fit(b.double(), _once(b)))


def frechet_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`frechet_distance` for resampled paired rows [n, d] and [n, d]."""
    a, b = a.double(), b.double()

    def statistic(counts: Counts) -> Values:
        each = (torch.from_numpy(row) for row in counts)
        return np.array([_frechet(*_fit(a, count), *_fit(b, count)) for count in each])

    return statistic


def _once(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64)


def _fit(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d], and an upper triangular R [min(n, d), d] such that R'R is the covariance."""
    weights = counts.double()
    mean = weights @ x / weights.sum()
    spread = (x - mean) * (weights / (weights.sum() - 1)).sqrt()[:, None]
    return mean, torch.linalg.qr(spread, mode="r").R


def _frechet(mean_a: Tensor, root_a: Tensor, mean_b: Tensor, root_b: Tensor) -> float:
    difference = (mean_a - mean_b).square().sum()
    traces = root_a.square().sum() + root_b.square().sum()

    # tr sqrt(A B) with A = R'R, B = S'S: the singular values of R S' are the roots of A B's
    # eigenvalues
    trace_root = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(difference + traces - 2 * trace_root))


def cmmd(a: Tensor, b: Tensor) -> float:
    """CMMD (Jayasumana et al., 2024): 1000 x squared maximum mean discrepancy of normalized CLIP
    embeddings [n, d] and [m, d], with a Gaussian kernel of bandwidth 10. It needs no Gaussian fit
    and only few samples."""
    aa, bb, ab = _gaussian_kernels(a, b)
    return float(1000 * (aa.mean() + bb.mean() - 2 * ab.mean()))


def cmmd_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`cmmd` for resampled paired rows [n, d] and [n, d]."""
    aa, bb, ab = _gaussian_kernels(a, b)
    kernel = aa + bb - 2 * ab
    return lambda counts: 1000 * (counts @ kernel * counts).sum(1) / counts.sum(1) ** 2


def _gaussian_kernels(a: Tensor, b: Tensor) -> Iterator[NDArray[np.float64]]:
    """The kernel matrices of a with a, b with b, and a with b."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    for x, y in ((a, a), (b, b), (a, b)):
        yield torch.exp(-torch.cdist(x, y).square() / (2 * 10**2)).numpy()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID's measure (Binkowski et al., 2018) on normalized CLIP embeddings of paired rows [n, d]
    and [n, d]: 1000 x squared maximum mean discrepancy with kernel (cosine + 1)^3; the cosine takes
    the place of KID's x.y / d for features of unit variance.

    It is unbiased for every n: equal distributions give 0 on average, so small negative values
    occur. This requires that rows of the same caption are not compared (Gretton et al., 2012, eq.
    4), because they are alike in any model. Its values are not comparable with Inception KID."""
    return float(kernel_distance_statistic(a, b)(np.ones((1, len(a)), np.int64))[0])


def kernel_distance_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`kernel_distance` for resampled rows."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    aa, bb, ab = ((x @ y.T + 1).pow(3).numpy() for x, y in ((a, a), (b, b), (a, b)))
    kernel = aa + bb - ab - ab.T

    def statistic(counts: Counts) -> Values:
        drawn = counts.sum(1)
        pairs = (counts @ kernel * counts).sum(1) - counts @ np.diag(kernel)
        return np.asarray(1000 * pairs / (drawn * (drawn - 1)))

    return statistic
