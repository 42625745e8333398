"""The Frechet distance of two Gaussians (Dowson and Landau 1982), behind FID and FVD, and what it is worth at finite n.

N, M samples, D features; everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mav.errors import ConfigError, DataError
from lightning_mav.metrics.moments import GaussianMoments, Moments, merge, moments_of


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), at least 0.

    Raises:
        DataError: Fewer than two samples on a side, or features of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(f"features have widths {len(a.mean)} and {len(b.mean)}; both sets need the same extractor")
    return _distance(a, b, trace_sqrt_product(a.covariance, b.covariance))


def _distance(a: Moments, b: Moments, trace: Tensor) -> float:
    """Return the distance, given tr((S_a S_b)^(1/2))."""
    squared = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * trace
    return max(0.0, float(squared))


def trace_sqrt_product(a: Tensor, b: Tensor) -> Tensor:
    """Return tr((a b)^(1/2)) of two symmetric positive semi-definite matrices (D, D).

    With a = R R^T the eigenvalues of a b are those of the symmetric R^T b R. R is the Cholesky factor, or, where ``a``
    is singular, comes from its eigenvectors; both are faster than the eigenvalues of a b, and never complex.
    """
    root, failed = torch.linalg.cholesky_ex(a)
    if failed:
        values, vectors = torch.linalg.eigh(a)
        root = vectors * values.clamp(min=0).sqrt()
    symmetric = root.T @ b @ root if failed else _congruent(root, b)
    trace: Tensor = torch.linalg.eigvalsh(symmetric).clamp(min=0).sqrt().sum()
    return trace


def _congruent(lower: Tensor, b: Tensor, width: int = 256) -> Tensor:
    """Return the lower triangle of R^T b R for a lower triangular R, in a third of the work of the whole products."""
    product = torch.zeros_like(b)
    for j in range(0, len(b), width):
        column = b[:, j:] @ lower[j:, j : j + width]
        for i in range(j, len(b), width):
            product[i : i + width, j : j + width] = lower[i:, i : i + width].T @ column[i:]
    return product


def frechet_distance_of_features(x: Tensor, y: Tensor) -> float:
    """Return the Frechet distance of features (N, D) and (M, D), exactly also for fewer samples than features.

    There the trace is the nuclear norm of the centred features' product X Y^T / sqrt((N - 1)(M - 1)).
    """
    a, b = moments_of(x), moments_of(y)
    if min(a.count, b.count) > len(a.mean):
        return frechet_distance(a, b)
    left, right = x.double() - a.mean, y.double() - b.mean
    product = left @ right.T / ((a.count - 1) * (b.count - 1)) ** 0.5
    return _distance(a, b, torch.linalg.svdvals(product).sum())


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error."""

    value: float
    error: float


def jackknife(x: Tensor, y: Tensor, groups: int = 20) -> Estimate:
    """Return the distance of the populations behind features, free of the bias of order 1/n.

    Features are (N, D) and (M, D), or (N, k, D) and (M, k, D): k vectors of each sample, which are left out together.
    Delete-a-group jackknife: group g leaves out samples g, g + groups, ... of both sets. A bootstrap would not do: it
    repeats samples, which makes the bias larger than any interval it gives.

    Raises:
        ConfigError: Fewer than 2 groups.
        DataError: Fewer than 2 samples per group.
    """
    if groups < 2:
        raise ConfigError(f"groups: {groups} is too few for a jackknife; take 20")
    if min(len(x), len(y)) < 2 * groups:
        raise DataError(f"{min(len(x), len(y))} samples are too few for {groups} groups; give at least {2 * groups}")
    parts = [(_moments(x[g::groups]), _moments(y[g::groups])) for g in range(groups)]
    whole = _without(parts, groups)
    left_out = torch.tensor([_without(parts, g) for g in range(groups)], dtype=torch.float64)
    value = groups * whole - (groups - 1) * left_out.mean()
    error = ((groups - 1) * left_out.var(correction=0)).sqrt()
    return Estimate(float(value), float(error))


def _moments(x: Tensor) -> Moments:
    return moments_of(x.flatten(0, -2))


def _without(parts: list[tuple[Moments, Moments]], group: int) -> float:
    """Return the distance of all groups but one; of all of them if there is no such group."""
    (a, b), *others = parts[:group] + parts[group + 1 :]
    for x, y in others:
        a, b = merge(a, x), merge(b, y)
    return frechet_distance(a, b)


class FrechetDistance(GaussianMoments):
    """The distance of features that come in batches from those of a reference set.

    Args:
        reference: Moments of the real features.
        options: As of ``torchmetrics.Metric``.
    """

    def __init__(self, reference: Moments, **options: Any) -> None:
        super().__init__(len(reference.mean), **options)
        self.reference = reference

    def compute(self) -> Tensor:
        """Return the Frechet distance of all features so far from the reference, a float64 scalar.

        Raises:
            DataError: Fewer than two samples.
        """
        return torch.tensor(frechet_distance(self.moments, self.reference), dtype=torch.float64)
