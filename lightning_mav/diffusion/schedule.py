"""Noise schedules and their respacing (Improved DDPM, Nichol and Dhariwal 2021, sections 3.2 and 4).

T is the number of steps of the schedule that is used, ``num_original`` the number it was trained with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lightning_mav.errors import ConfigError

ScheduleName = Literal["cosine", "linear"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The variances of the forward process q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I).

    Attributes:
        betas: (T,) float64, in (0, 1), on the CPU.
        timesteps: (T,) int64, ascending: the original index of every step, which is what a network is given.
        num_original: number of steps of the schedule before any respacing.
    """

    betas: Tensor
    timesteps: Tensor
    num_original: int

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Signal variance alpha-bar_t = prod_{s <= t} (1 - beta_s), (T,) float64."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """alpha-bar_{t-1}, with 1 before the first step, (T,) float64."""
        return torch.cat([torch.ones_like(self.betas[:1]), self.alphas_cumprod[:-1]])

    @cached_property
    def posterior_variance(self) -> Tensor:
        """beta~_t, the variance of q(x_{t-1} | x_t, x_0), (T,) float64; 0 at t = 0 (DDPM, eq. 7)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """Logarithm of beta~_t, where t = 0, whose variance is 0, takes the value of t = 1, (T,) float64."""
        first = self.posterior_variance[1:2] if len(self) > 1 else self.betas
        return torch.cat([first, self.posterior_variance[1:]]).log()

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0), (T,) float64 (DDPM, eq. 7)."""
        return self.alphas_cumprod_prev.sqrt() * self.betas / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0), (T,) float64 (DDPM, eq. 7)."""
        return (1 - self.betas).sqrt() * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)


def make_schedule(name: ScheduleName, num_timesteps: int = 1000) -> NoiseSchedule:
    """Return the named schedule over ``num_timesteps`` steps.

    Raises:
        ConfigError: ``num_timesteps`` is not positive.
    """
    if num_timesteps < 1:
        raise ConfigError(f"num_timesteps is {num_timesteps}; a noise schedule needs at least 1 step")
    betas = {"cosine": _cosine_betas, "linear": _linear_betas}[name](num_timesteps)
    return NoiseSchedule(betas, torch.arange(num_timesteps), num_timesteps)


def spaced_timesteps(num_timesteps: int, spec: int | str | Sequence[int], shift: float = 1.0) -> list[int]:
    """Choose which of the steps 0..num_timesteps-1 a sampler visits.

    Args:
        num_timesteps: length of the original schedule.
        spec: ``n`` (or ``"n"``) evenly strided steps that include both ends; ``"10,15,20"`` or a sequence: that many
            in each of as many equal sections; ``"ddimN"``: N steps of one fixed integer stride, from 0;
            ``"fast27"``: the 27 steps of GLIDE's upsampler.
        shift: s >= 1 moves evenly strided steps to high noise, u -> s u / (1 + (s - 1) u) on u = t / (T - 1). Steps
            that meet after rounding are merged, so a strong shift of many steps returns fewer than ``n``.

    Returns:
        Ascending step indices without repeats.

    Raises:
        ConfigError: the spec cannot be read, asks for more steps than there are, or is combined with a shift.
    """
    if isinstance(spec, str) and spec.isdigit():
        spec = int(spec)
    if isinstance(spec, int):
        return _strided(num_timesteps, spec, shift)
    if shift != 1.0:
        raise ConfigError(f"shift {shift} needs a plain number of steps, not {spec!r}; set shift to 1")
    if spec == "fast27":
        # GLIDE ends two steps before the noisiest one, where DDIM leaves artefacts.
        return [*_sections(num_timesteps, [10, 10, 3, 2, 2])[:-1], num_timesteps - 3]
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _fixed_stride(num_timesteps, spec)
    return _sections(num_timesteps, _counts(spec))


def respace(schedule: NoiseSchedule, timesteps: Sequence[int]) -> NoiseSchedule:
    """Keep only ``timesteps`` (ascending indices into ``schedule``), with the same alpha-bar at every kept step."""
    kept = torch.as_tensor(timesteps)
    alphas_cumprod = schedule.alphas_cumprod[kept]
    previous = torch.cat([torch.ones_like(alphas_cumprod[:1]), alphas_cumprod[:-1]])
    return NoiseSchedule(1 - alphas_cumprod / previous, schedule.timesteps[kept], schedule.num_original)


def _cosine_betas(num_timesteps: int) -> Tensor:
    """alpha-bar(u) = cos^2((u + s) / (1 + s) pi/2), s = 0.008, beta clipped at 0.999 (Improved DDPM, eq. 17)."""
    s = 0.008
    u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)


def _linear_betas(num_timesteps: int) -> Tensor:
    """Beta from 1e-4 to 0.02 over 1000 steps, scaled for other lengths (DDPM, section 4)."""
    scale = 1000 / num_timesteps
    return torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), num_timesteps, dtype=torch.float64)


def _strided(num_timesteps: int, count: int, shift: float) -> list[int]:
    _check_count(count, num_timesteps)
    last = num_timesteps - 1
    # Counted down from the end, so that a single step is the noisiest one.
    evenly = [(count - 1 - i) * last / (count - 1) if count > 1 else last for i in range(count)]
    return sorted({round(shift * t / (1 + (shift - 1) * t / max(last, 1))) for t in evenly})


def _sections(num_timesteps: int, counts: Sequence[int]) -> list[int]:
    size, larger = divmod(num_timesteps, len(counts))
    timesteps, start = [], 0
    for section, count in enumerate(counts):
        length = size + (section < larger)
        _check_count(count, length)
        timesteps += [start + round(i * (length - 1) / max(count - 1, 1)) for i in range(count)]
        start += length
    return timesteps


def _fixed_stride(num_timesteps: int, spec: str) -> list[int]:
    for stride in range(1, num_timesteps + 1):
        if spec == f"ddim{len(range(0, num_timesteps, stride))}":
            return list(range(0, num_timesteps, stride))
    raise ConfigError(f"no integer stride gives {spec!r} out of {num_timesteps} steps; use a plain number of steps")


def _counts(spec: str | Sequence[int]) -> list[int]:
    try:
        return [int(count) for count in (spec.split(",") if isinstance(spec, str) else spec)]
    except ValueError:
        raise ConfigError(f"cannot read steps {spec!r}; use 50, '10,15,20', 'ddim25' or 'fast27'") from None


def _check_count(count: int, available: int) -> None:
    if not 1 <= count <= available:
        raise ConfigError(f"cannot take {count} steps out of {available}; ask for 1 to {available}")
