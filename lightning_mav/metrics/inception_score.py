"""The Inception Score (Salimans et al. 2016) of class probabilities, in the conventions that UCF-101 numbers use.

N samples, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mav.errors import DataError
from lightning_mav.seeding import generator


@dataclass(frozen=True)
class InceptionScore:
    """Mean and sample deviation of the scores of the splits; the deviation of one split is 0."""

    mean: float
    std: float
    splits: int


def score(logits: Tensor) -> float:
    """Return exp(E KL(p(y|x) || p(y))) of logits (N, K), from 1 to K; saturated logits stay finite."""
    log_p = logits.double().log_softmax(1)
    log_marginal = log_p.logsumexp(0) - torch.tensor(float(len(logits)), dtype=torch.float64).log()
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> InceptionScore:
    """Return the Inception Score of logits (N, K) in shuffled splits.

    Published protocols differ in what a split is: 10 splits of 2,048 samples in all (StyleGAN-V), one of 9,984 (TGAN),
    or 10 of 2,048 each (TGANv2). The score grows with the size of a split, so it means nothing without it.

    Args:
        logits: (N, K) before the softmax.
        splits: Number of splits; they differ by one sample at most.
        seed: Of the shuffle, without which samples sorted by class give a far lower score.

    Raises:
        DataError: Logits that are not finite, or fewer samples than splits.
    """
    if not torch.isfinite(logits).all():
        raise DataError("logits are not finite; look at the videos behind them")
    if not 1 <= splits <= len(logits):
        raise DataError(f"{len(logits)} samples cannot make {splits} splits; give more samples or fewer splits")
    order = torch.randperm(len(logits), generator=generator("inception score", seed))
    scores = torch.tensor([score(part) for part in logits[order].tensor_split(splits)], dtype=torch.float64)
    std = float(scores.std()) if splits > 1 else 0.0
    return InceptionScore(float(scores.mean()), std, splits)
