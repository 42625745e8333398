"""The forward process, its posterior, and the three ways to parameterise a prediction.

Tensors are (B, ...): videos (B, C, F, H, W) in [-1, 1] or embeddings (B, D). ``t`` is (B,) int64, an index into the
schedule that is passed, 0..T-1. Results are float32 also for bfloat16 inputs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_mav.diffusion.schedule import NoiseSchedule

Parameterisation = Literal["eps", "x0", "v"]
FixedVariance = Literal["fixed_small", "fixed_large"]
VarianceKind = Literal["fixed_small", "fixed_large", "learned_range"]


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian.

    Attributes:
        mean: (B, ...).
        log_variance: natural logarithm, broadcasts against ``mean``.
    """

    mean: Tensor
    log_variance: Tensor


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return ``table[t]`` as float32 on the device of ``like``, with one axis per axis of ``like``."""
    values = table.to(like.device, torch.float32)[t.to(like.device)]
    return values.view(-1, *[1] * (like.dim() - 1))


def signal_and_noise(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return a = sqrt(alpha-bar_t) and b = sqrt(1 - alpha-bar_t), the weights in x_t = a x_0 + b eps."""
    alphas_cumprod = schedule.alphas_cumprod
    return gather(alphas_cumprod.sqrt(), t, like), gather((1 - alphas_cumprod).sqrt(), t, like)


def diffuse(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Draw x_t from q(x_t | x_0) = N(a x_0, b^2 I), given standard normal ``noise`` (DDPM, eq. 4)."""
    a, b = signal_and_noise(schedule, t, x0)
    return a * x0 + b * noise


def prediction_target(
    parameterisation: Parameterisation, schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """Return what a network should output: the noise, the data, or v = a eps - b x_0 (Salimans and Ho 2022)."""
    if parameterisation == "eps":
        return noise.float()
    if parameterisation == "x0":
        return x0.float()
    a, b = signal_and_noise(schedule, t, x0)
    return a * noise - b * x0


def predict_x0(
    parameterisation: Parameterisation, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """Turn a network's output at ``x_t`` into its prediction of x_0, unclipped."""
    if parameterisation == "x0":
        return output.float()
    a, b = signal_and_noise(schedule, t, x_t)
    if parameterisation == "eps":
        return (x_t - b * output) / a
    return a * x_t - b * output


def predict_eps(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the noise that leads from ``x0`` to ``x_t``."""
    a, b = signal_and_noise(schedule, t, x_t)
    return (x_t - a * x0) / b


def posterior(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
    """Return q(x_{t-1} | x_t, x_0) (DDPM, eq. 6 and 7), its log variance clipped at t = 0."""
    mean = gather(schedule.posterior_mean_coef1, t, x_t) * x0 + gather(schedule.posterior_mean_coef2, t, x_t) * x_t
    return Gaussian(mean, gather(schedule.posterior_log_variance_clipped, t, x_t))


def learned_range_log_variance(schedule: NoiseSchedule, v: Tensor, t: Tensor) -> Tensor:
    """Interpolate between log beta~_t (v = -1) and log beta_t (v = 1) (Improved DDPM, eq. 15).

    ``v`` is unconstrained. On a respaced schedule both ends are those of its own, longer steps.
    """
    low = gather(schedule.posterior_log_variance_clipped, t, v)
    high = gather(schedule.betas.log(), t, v)
    return low + (v.float() + 1) / 2 * (high - low)


def fixed_log_variance(kind: FixedVariance, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
    """Return log beta~_t (small) or log beta_t (large), (B, 1, ...), equal at t = 0 (DDPM, section 3.2)."""
    small = schedule.posterior_log_variance_clipped
    large = torch.cat([small[:1], schedule.betas[1:].log()])
    return gather(small if kind == "fixed_small" else large, t, x_t)
