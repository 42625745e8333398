"""Samplers: from noise x_T to data x_0 along a (respaced) schedule. One signature, so that they are interchangeable.

A sampler starts at the last step of ``schedule``, calls ``denoise`` once per step, and returns the last prediction of
x_0, (B, ...) float32. Noise comes only from ``draw``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from lightning_mav.diffusion.process import posterior, predict_eps
from lightning_mav.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Denoised:
    """What a model says about x_t.

    Attributes:
        x0: (B, ...) predicted data; clipping it is up to the model.
        log_variance: of p(x_{t-1} | x_t), broadcasts against ``x0``; None if the model does not learn it.
    """

    x0: Tensor
    log_variance: Tensor | None = None


Denoise = Callable[[Tensor, Tensor], Denoised]
"""``(x_t, t)``, with ``t`` (B,) int64 an index into the sampler's schedule."""

NoiseDraw = Callable[[], Tensor]
"""Returns standard normal noise of the shape of x_T, new at every call."""

OnStep = Callable[[int, int], None]
"""Told ``(steps done, steps in all)`` after every step."""


class Sampler(Protocol):
    """The signature that all samplers share."""

    def __call__(
        self, denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, draw: NoiseDraw, on_step: OnStep | None = None
    ) -> Tensor:
        """Return x_0."""


def ddpm(
    denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, draw: NoiseDraw, on_step: OnStep | None = None
) -> Tensor:
    """Ancestral sampling (DDPM, algorithm 2), with the model's variance where it has one, else the small fixed one."""
    x = x_T.float()
    for i, t in _descend(x, schedule, on_step):
        denoised = denoise(x, t)
        q = posterior(schedule, denoised.x0, x, t)
        log_variance = q.log_variance if denoised.log_variance is None else denoised.log_variance
        x = q.mean if i == 0 else q.mean + (0.5 * log_variance).exp() * draw().to(x)
    return x


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    draw: NoiseDraw,
    on_step: OnStep | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12), which puts fresh noise for a part of the noise that x_t holds.

    ``eta`` 0 does not and never calls ``draw``, 1 is ``ddpm`` with the small variance. Above 1, what early steps got
    wrong is forgotten and done again; that wants more steps, as few narrow the distribution.
    """
    variance = 1 - schedule.alphas_cumprod_prev
    renewed = torch.minimum(eta**2 * schedule.posterior_variance, variance)
    weights = [schedule.alphas_cumprod_prev, variance - renewed, renewed]
    signal, kept, fresh = (weight.sqrt().tolist() for weight in weights)
    x = x_T.float()
    for i, t in _descend(x, schedule, on_step):
        x0 = denoise(x, t).x0
        x = signal[i] * x0 + kept[i] * predict_eps(schedule, x0, x, t)
        if fresh[i]:
            x = x + fresh[i] * draw().to(x)
    return x


def dpm_solver_pp(
    denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, draw: NoiseDraw, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M), deterministic (Lu et al. 2022, algorithm 2); never calls ``draw``.

    Its step h is one of half the log-SNR. Timesteps evenly strided in t end in a long h; extrapolating over all of it
    overshoots and then loses to DDIM, so h / h_last is capped at 1, which keeps the order of convergence.
    """
    a, b = schedule.alphas_cumprod.sqrt().tolist(), (1 - schedule.alphas_cumprod).sqrt().tolist()
    half_log_snr = (schedule.alphas_cumprod.logit() / 2).tolist()
    x = x0_last = x_T.float()
    h_last = math.inf
    for i, t in _descend(x, schedule, on_step):
        x0 = denoise(x, t).x0
        if i > 0:
            h = half_log_snr[i - 1] - half_log_snr[i]
            extrapolated = x0 + 0.5 * min(h / h_last, 1) * (x0 - x0_last)
            x = b[i - 1] / b[i] * x - a[i - 1] * math.expm1(-h) * extrapolated
            x0_last, h_last = x0, h
    return x0


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm++": dpm_solver_pp}


def sampler_of(name: str, eta: float) -> Sampler:
    """Return a sampler by name; ``eta`` is that of ddim."""
    return partial(ddim, eta=eta) if name == "ddim" else SAMPLERS[name]


def _descend(x: Tensor, schedule: NoiseSchedule, on_step: OnStep | None) -> Iterator[tuple[int, Tensor]]:
    """Yield every step from the noisiest to 0, as an int and as the (B,) tensor that ``denoise`` takes."""
    total = len(schedule)
    for i in reversed(range(total)):
        yield i, torch.full((len(x),), i, device=x.device)
        if on_step is not None:
            on_step(total - i, total)
