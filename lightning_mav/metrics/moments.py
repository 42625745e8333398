"""Count, mean and scatter of features, streamed in float64 and merged exactly over batches and processes.

N samples, D features, P processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mav.errors import DataError, NumericError
from lightning_mav.metrics.precise import PreciseMetric


@dataclass(frozen=True)
class Moments:
    """What a Frechet distance needs to know of a set of features.

    Attributes:
        count: N.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D), over N - 1.

        Raises:
            DataError: Fewer than two samples.
        """
        if self.count < 2:
            raise DataError(f"a covariance needs at least 2 samples, but there are {self.count}; give more")
        return self.scatter / (self.count - 1)


def moments_of(features: Tensor) -> Moments:
    """Return the moments of features (N, D).

    Raises:
        NumericError: A feature is not finite.
    """
    if not torch.isfinite(features).all():
        rows = (~torch.isfinite(features)).any(1).nonzero()[:8, 0].tolist()
        raise NumericError(f"features of samples {', '.join(map(str, rows))} are not finite; look at those samples")
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    return Moments(len(x), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of two sets together (Chan et al. 1979), precise also where the mean is large."""
    count = a.count + b.count
    if count == 0:
        return a
    shift = b.mean - a.mean
    scatter = a.scatter + b.scatter + torch.outer(shift, shift) * (a.count * b.count / count)
    return Moments(count, a.mean + shift * (b.count / count), scatter)


class MomentsMetric(PreciseMetric):
    """Base of metrics that gather the moments of one or more sets of features.

    Each state is a float64 vector (1 + D + D*D,), so that processes merge it as a whole.

    Args:
        dim: D.
        sets: Names of the sets, one state each.
        options: As of ``torchmetrics.Metric``.
    """

    def __init__(self, dim: int, sets: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.dim, self.sets = dim, tuple(sets)
        for name in sets:
            self.add_state(name, torch.zeros(1 + dim + dim * dim, dtype=torch.float64), dist_reduce_fx=self._merge_all)

    def add(self, name: str, features: Tensor) -> None:
        """Add a batch of features (N, D) to a set.

        Raises:
            DataError: Features of another width.
            NumericError: A feature is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise DataError(f"expected features of shape (N, {self.dim}), got {tuple(features.shape)}")
        if len(features):
            state: Tensor = getattr(self, name)
            setattr(self, name, _pack(merge(self.moments_of(name), moments_of(features.to(state.device)))))

    def moments_of(self, name: str) -> Moments:
        """Return the moments of what this process has seen of a set; inside ``compute``, of all processes."""
        return _unpack(getattr(self, name), self.dim)

    def _merge_all(self, stacked: Tensor) -> Tensor:
        """Merge the states (P, 1 + D + D*D) of all processes."""
        total, *others = (_unpack(one, self.dim) for one in stacked)
        for other in others:
            total = merge(total, other)
        return _pack(total)


class GaussianMoments(MomentsMetric):
    """Moments of features that come in batches.

    Args:
        dim: D.
        options: As of ``torchmetrics.Metric``.
    """

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, ("packed",), **options)

    def update(self, features: Tensor) -> None:
        """Add a batch of features (N, D); raises as ``add``."""
        self.add("packed", features)

    @property
    def moments(self) -> Moments:
        """The moments of all features so far."""
        return self.moments_of("packed")

    def compute(self) -> Any:
        """Return the moments of all features so far as tensors: count, mean, scatter."""
        return torch.tensor(self.moments.count), self.moments.mean, self.moments.scatter


def _pack(moments: Moments) -> Tensor:
    return torch.cat([moments.mean.new_tensor([moments.count]), moments.mean, moments.scatter.flatten()])


def _unpack(packed: Tensor, dim: int) -> Moments:
    return Moments(int(packed[0]), packed[1 : 1 + dim], packed[1 + dim :].view(dim, dim))
