"""``python -m eval selfcheck``: do the metrics on this machine give the values they must?

Closed forms need no file. Values that others published are checked where the weights are at hand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mav.errors import CheckpointError, NumericError
from lightning_mav.metrics.frechet import frechet_distance, frechet_distance_of_features, jackknife
from lightning_mav.metrics.inception_score import score
from lightning_mav.metrics.moments import moments_of
from lightning_mav.metrics.pretrained import i3d
from lightning_mav.seeding import generator


@dataclass(frozen=True)
class Check:
    """One value that is known beforehand.

    Attributes:
        name: What is checked.
        expected: The value.
        tolerance: Largest difference allowed.
        compute: Returns what this machine finds.
        source: Where the value comes from.
    """

    name: str
    expected: float
    tolerance: float
    compute: Callable[[], float]
    source: str


def orthogonal_samples() -> Tensor:
    """Return (16, 8) features with exact mean zero and covariance 16/15 I: columns of a Hadamard matrix."""
    h = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h[:, 1:9]


def _diagonal() -> float:
    z = orthogonal_samples()
    up = torch.arange(1.0, 9, dtype=torch.float64)
    return frechet_distance(moments_of(z * up), moments_of(z * up.flip(0) + 0.5 * (up - 1)))


def _non_commuting() -> float:
    z = orthogonal_samples()[:, :2]
    a = torch.tensor([[2.0, 1], [0, 1]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0], [1, 3]], dtype=torch.float64)
    return frechet_distance(moments_of(z @ a.T), moments_of(z @ b.T))


def _singular() -> float:
    z = orthogonal_samples()
    first = torch.arange(8) < 4
    return frechet_distance(moments_of(z * first), moments_of(z * ~first))


def _gaussians(groups: int = 20) -> float:
    """Return by how many of its errors the jackknife misses the distance of two known Gaussians."""
    draw = generator("selfcheck")
    deviations = torch.linspace(0.2, 2, 64, dtype=torch.float64)
    x, y = (torch.randn(1000, 64, generator=draw, dtype=torch.float64) * deviations for _ in range(2))
    found = jackknife(x, 1.2 * y + 0.1, groups)
    truth = 64 * 0.1**2 + float((0.2 * deviations).square().sum())
    return abs(found.value - truth) / found.error


def _zeros_against_ones() -> float:
    extract = i3d()
    videos = [torch.full((8, 3, 30, 64, 64), level, dtype=torch.uint8) for level in (0, 255)]
    return frechet_distance_of_features(*(torch.cat([extract(one[None]) for one in video]) for video in videos))


CHECKS = (
    Check("Frechet, diagonal", 214.2, 1e-10, _diagonal, "closed form"),
    Check("Frechet, not commuting", 6.644981744779724, 1e-12, _non_commuting, "closed form"),
    Check("Frechet, singular", 128 / 15, 1e-9, _singular, "closed form"),
    Check(
        "Frechet, constants",
        400.0,
        1e-9,
        lambda: frechet_distance_of_features(torch.zeros(8, 400), torch.ones(8, 400)),
        "closed form",
    ),
    Check("Inception Score, one-hot", 101.0, 1e-6, lambda: score(1e4 * torch.eye(101)), "closed form"),
    Check(
        "Inception Score, two classes",
        2 * math.exp(0.9 * math.log(0.9) + 0.1 * math.log(0.1)),
        1e-9,
        lambda: score(torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).log()),
        "closed form",
    ),
    Check("jackknife, errors off the truth", 0.0, 3.0, _gaussians, "two Gaussians, n = 1,000"),
    Check("FVD of zeros against ones", 151.256, 1.0, _zeros_against_ones, "JunyaoHu/common_metrics_on_video_quality"),
)


def selfcheck() -> str:
    """Return a line per check.

    Raises:
        NumericError: A value is wrong.
    """
    lines, wrong = [], []
    for check in CHECKS:
        try:
            found = check.compute()
        except CheckpointError as error:
            lines.append(f"not run  {check.name}: {error}")
            continue
        right = abs(found - check.expected) <= check.tolerance
        line = f"{check.name}: {found:.12g}, expected {check.expected:.12g} +- {check.tolerance:g}"
        wrong += [] if right else [line]
        lines.append(f"ok       {line}")
    if wrong:
        raise NumericError(f"wrong: {'; '.join(wrong)}; do not trust numbers of this machine")
    return "\n".join(lines)
