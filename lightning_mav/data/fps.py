"""The frame rate of a training window: a beta distribution that moves from high to low rates (paper section 3.3)."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class FpsDistribution:
    """fps = low + (high - low) u with u ~ Beta(a, b), where (a, b) moves from ``beta_start`` to ``beta_end``.

    Args:
        beta_start: (a, b) at position 0; the default has its mean at 25 fps.
        beta_end: (a, b) from position ``curriculum_samples`` on; the default has its mean at 11 fps.
        curriculum_samples: samples over which (a, b) moves linearly; 0 means ``beta_end`` from the first sample.
        low: smallest rate, frames per second.
        high: largest rate, frames per second.
    """

    beta_start: tuple[float, float] = (5.0, 1.0)
    beta_end: tuple[float, float] = (1.0, 2.0)
    curriculum_samples: int = 0
    low: float = 1.0
    high: float = 30.0

    def beta_at(self, position: int) -> tuple[float, float]:
        """Return (a, b) for the sample at ``position``, the number of samples the run consumed before it."""
        progress = min(position / self.curriculum_samples, 1.0) if self.curriculum_samples else 1.0
        (a0, b0), (a1, b1) = self.beta_start, self.beta_end
        return a0 + (a1 - a0) * progress, b0 + (b1 - b0) * progress

    def draw(self, position: int, generator: torch.Generator) -> float:
        """Return one rate in frames per second for the sample at ``position``."""
        seed = int(torch.randint(2**62, (), generator=generator))
        u = float(np.random.default_rng(seed).beta(*self.beta_at(position)))
        return self.low + (self.high - self.low) * u
