"""Training objectives: L_simple, the variational bound, their hybrid, weightings and timestep densities.

Shapes as in process.py; every loss is (B,), one number per sample, float32.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_mav.diffusion.process import (
    Gaussian,
    Parameterisation,
    gather,
    learned_range_log_variance,
    posterior,
    predict_x0,
    prediction_target,
)
from lightning_mav.diffusion.schedule import NoiseSchedule

LossWeighting = Literal["uniform", "min_snr", "capped_residual"]

HALF_BIN = 1 / 255  # half the distance of two 8-bit levels in [-1, 1]
WEIGHT_CAP = 5.0


@dataclass(frozen=True)
class HybridLoss:
    """The parts of the hybrid loss, each (B,): ``total`` = ``simple`` + vlb_weight * T * ``vlb`` (in bits)."""

    total: Tensor
    simple: Tensor
    vlb: Tensor


@dataclass(frozen=True)
class TimestepDensity:
    """How training draws timesteps.

    Attributes:
        kind: ``uniform`` over 0..T-1, or ``logit_normal``: t = floor(T sigmoid(n)), n ~ N(mean, std^2).
        mean: of the logit; positive values favour high noise.
        std: of the logit.
        mean_end: mean from sample ``curriculum_samples`` of the training on; until then it moves there linearly. A
            network that is to work in one step from pure noise cannot learn from that alone: it needs hints first.
        curriculum_samples: 0 means ``mean`` throughout.
    """

    kind: Literal["uniform", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: float = 1.0
    mean_end: float = 0.0
    curriculum_samples: int = 0

    def draw(self, num_timesteps: int, generator: torch.Generator, position: int = 0) -> int:
        """Draw one timestep in 0..num_timesteps-1 for the sample at a position of the training."""
        if self.kind == "uniform":
            return int(torch.randint(num_timesteps, (), generator=generator))
        progress = min(position / self.curriculum_samples, 1.0) if self.curriculum_samples else 0.0
        mean = self.mean + progress * (self.mean_end - self.mean)
        logit = mean + self.std * torch.randn((), generator=generator, dtype=torch.float64)
        return min(int(num_timesteps * logit.sigmoid()), num_timesteps - 1)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """L_simple: the mean squared error of each sample, (B,)."""
    return (output.float() - target.float()).square().flatten(1).mean(1)


def vlb_bits(
    schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor, mean_x0_prediction: Tensor, log_variance: Tensor
) -> Tensor:
    """One term of the variational bound, in bits per dimension, (B,) (DDPM, eq. 5).

    Args:
        schedule: of ``t``.
        x0: data in [-1, 1]; at t = 0 taken as 8-bit levels.
        x_t: ``x0`` diffused to ``t``.
        t: (B,) index into ``schedule``.
        mean_x0_prediction: the prediction of x_0 that gives the mean of p(x_{t-1} | x_t).
        log_variance: of p(x_{t-1} | x_t).

    Returns:
        KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, -log p(x_0 | x_1) for t = 0.
    """
    model = Gaussian(posterior(schedule, mean_x0_prediction, x_t, t).mean, log_variance)
    kl = _kl(posterior(schedule, x0, x_t, t), model)
    nll = _discretised_nll(x0, model)
    nats = torch.where(t.to(x0.device) == 0, nll.flatten(1).mean(1), kl.flatten(1).mean(1))
    return nats / math.log(2)


def hybrid(
    schedule: NoiseSchedule,
    parameterisation: Parameterisation,
    output: Tensor,
    x0: Tensor,
    noise: Tensor,
    x_t: Tensor,
    t: Tensor,
    vlb_weight: float = 0.001,
) -> HybridLoss:
    """L_simple + lambda L_vlb with a learned variance (Improved DDPM, eq. 16).

    The mean enters the bound with a stop-gradient: L_vlb trains the variance only, L_simple the mean only.

    Args:
        schedule: of ``t``.
        parameterisation: of the first half of ``output``.
        output: (B, 2C, ...): C mean channels, then C variance channels v, log beta~ at -1 and log beta at 1.
        x0: (B, C, ...) data in [-1, 1].
        noise: (B, C, ...) standard normal.
        x_t: (B, C, ...) = diffuse(schedule, x0, noise, t).
        t: (B,) index into ``schedule``.
        vlb_weight: lambda.
    """
    prediction, v = output.float().chunk(2, dim=1)
    simple = mse(prediction, prediction_target(parameterisation, schedule, x0, noise, t))
    x0_prediction = predict_x0(parameterisation, schedule, prediction.detach(), x_t, t)
    vlb = vlb_bits(schedule, x0, x_t, t, x0_prediction, learned_range_log_variance(schedule, v, t))
    return HybridLoss(simple + vlb_weight * len(schedule) * vlb, simple, vlb)


def loss_weight(name: LossWeighting, parameterisation: Parameterisation, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Return the factor, (B,) on the device of ``t``, on the squared error of the network's own output.

    ``uniform``: 1. ``min_snr``: the error of x_0 weighs min(SNR, 5) (Hang et al. 2023). ``capped_residual``: the error
    of x_0 weighs min(1/b^2, 5), that is a v-loss whose weight is capped where little noise is left.
    """
    if name == "uniform":
        return torch.ones(t.shape, device=t.device)
    b2 = 1 - schedule.alphas_cumprod
    snr = schedule.alphas_cumprod / b2
    on_x0 = {"min_snr": snr, "capped_residual": 1 / b2}[name].clamp(max=WEIGHT_CAP)
    # An error d of x_0 is an error d sqrt(SNR) of eps and d / b of v.
    from_x0 = {"x0": torch.ones_like(b2), "eps": 1 / snr, "v": b2}[parameterisation]
    return gather(on_x0 * from_x0, t, like=t)


def _kl(p: Gaussian, q: Gaussian) -> Tensor:
    """KL(p || q) per dimension, in nats."""
    log_ratio = q.log_variance - p.log_variance
    squared_distance = (p.mean - q.mean).square()
    return 0.5 * (log_ratio - 1 + (-log_ratio).exp() + squared_distance * (-q.log_variance).exp())


def _discretised_nll(x0: Tensor, model: Gaussian) -> Tensor:
    """-log of the mass that ``model`` gives to the 8-bit level of each x_0, in nats; the end levels take the tails."""
    inverse_std = (-0.5 * model.log_variance).exp()
    offset = x0.float() - model.mean
    below = torch.where(x0 < -0.999, 0.0, _normal_cdf((offset - HALF_BIN) * inverse_std))
    above = torch.where(x0 > 0.999, 1.0, _normal_cdf((offset + HALF_BIN) * inverse_std))
    return -(above - below).clamp(min=1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    """The standard normal's, to 2e-4, by the formula that published networks were trained with (guided-diffusion)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
