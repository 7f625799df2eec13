"""Image metrics on embeddings: CLIP score, diversity, Frechet distance, CMMD, kernel distance, KID.

A statistic takes how often each row counts: once by default, other numbers when a bootstrap draws
rows with replacement (pipeline/scoring/bootstrap.py).

n, m samples   d embedding width   r resamplings; all arithmetic in float64
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Counts = NDArray[np.int64]  # [r, n]: how often each of n rows counts, in each of r resamplings
Values = NDArray[np.float64]  # [r]
Statistic = Callable[[Counts], Values]

_ROWS = 1024  # of a kernel matrix in memory at a time


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
    al., 2017, eq. 6). On Inception features it is FID; on others its values are not comparable with
    it. With few samples it is biased upwards, so compare only runs with the same n."""
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
    embeddings of paired rows [n, d] and [n, d], with a Gaussian kernel of bandwidth 10. It needs no
    Gaussian fit and only few samples."""
    return float(cmmd_statistic(a, b)(np.ones((1, len(a)), np.int64))[0])


def cmmd_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`cmmd` for resampled rows."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)

    def statistic(counts: Counts) -> Values:
        sums, _ = _sums_over_pairs(_gaussian_kernel, a, b, counts)
        return np.asarray(1000 * sums / counts.sum(1) ** 2)

    return statistic


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID's measure (Binkowski et al., 2018) on normalized embeddings of paired rows [n, d] and
    [n, d]: 1000 x squared maximum mean discrepancy with kernel (cosine + 1)^3; the cosine takes the
    place of KID's x.y / d for features of unit variance.

    It is unbiased for every n: equal distributions give 0 on average, so small negative values
    occur. This requires that rows of the same caption are not compared (Gretton et al., 2012, eq.
    4), because they are alike in any model. Its values are not comparable with Inception KID."""
    return float(kernel_distance_statistic(a, b)(np.ones((1, len(a)), np.int64))[0])


def kernel_distance_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`kernel_distance` for resampled rows."""
    a, b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    return _unbiased(lambda x, y: (x @ y.T + 1).pow(3), a, b, scale=1000)


def kid(a: Tensor, b: Tensor) -> float:
    """KID (Binkowski et al., 2018): the unbiased squared maximum mean discrepancy of Inception
    features of paired rows [n, d] and [n, d], kernel (x.y / d + 1)^3, over all pairs instead of
    random subsets. As in `kernel_distance`, rows of the same caption are not compared."""
    return float(kid_statistic(a, b)(np.ones((1, len(a)), np.int64))[0])


def kid_statistic(a: Tensor, b: Tensor) -> Statistic:
    """`kid` for resampled rows."""
    return _unbiased(lambda x, y: (x @ y.T / x.shape[1] + 1).pow(3), a.double(), b.double())


Kernel = Callable[[Tensor, Tensor], Tensor]  # float64 [p, d], [q, d] -> [p, q]


def _gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(x, y).square() / (2 * 10**2))


def _unbiased(kernel: Kernel, a: Tensor, b: Tensor, scale: float = 1) -> Statistic:
    """The squared maximum mean discrepancy without pairs of a row with itself."""

    def statistic(counts: Counts) -> Values:
        sums, diagonal = _sums_over_pairs(kernel, a, b, counts)
        drawn = counts.sum(1)
        return np.asarray(scale * (sums - counts @ diagonal) / (drawn * (drawn - 1)))

    return statistic


def _sums_over_pairs(kernel: Kernel, a: Tensor, b: Tensor, counts: Counts) -> tuple[Values, Values]:
    """The sum of k(a, a) + k(b, b) - 2 k(a, b) over all pairs of drawn rows [r], and the summands
    of each row with itself [n].

    Some rows of the matrix [n, n] are in memory at a time: with 30,000 images it has 7 GB."""
    sums, diagonal = np.zeros(len(counts)), np.zeros(len(a))
    for start in range(0, len(a), _ROWS):
        part = slice(start, start + _ROWS)
        summands = kernel(a[part], a) + kernel(b[part], b) - 2 * kernel(a[part], b)
        rows = summands.numpy()  # [p, n]
        sums += (counts[:, part] @ rows * counts).sum(1)
        diagonal[part] = np.diagonal(rows, offset=start)
    return sums, diagonal
