"""What all diffusion models share: an objective to train by, a way to sample, and the edge between pixels and network.

A model is network + noise schedule + objective, the thing that is saved and exchanged; it knows no Lightning.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from lightning_mav.diffusion.guidance import Condition, classifier_free_guidance
from lightning_mav.diffusion.loss import LossWeighting, TimestepDensity, hybrid, loss_weight, mse
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.process import (
    Parameterisation,
    VarianceKind,
    diffuse,
    fixed_log_variance,
    learned_range_log_variance,
    predict_x0,
    prediction_target,
)
from lightning_mav.diffusion.samplers import Denoised, OnStep, sampler_of
from lightning_mav.diffusion.schedule import NoiseSchedule, ScheduleName, make_schedule, respace, spaced_timesteps
from lightning_mav.errors import ConfigError

NetworkCall = Callable[[Tensor, Tensor, Condition], Tensor]
"""``(x_t, timestep, condition) -> output``, with original timesteps (B,)."""


@dataclass(frozen=True)
class Objective:
    """What the network predicts and how its error counts (Improved DDPM; paper section 3).

    Args:
        schedule: Noise schedule.
        num_timesteps: T.
        parameterisation: What the network outputs.
        variance: Of the reverse process; ``learned_range`` doubles the output channels and trains by the hybrid loss.
        vlb_weight: lambda of the hybrid loss.
        weighting: Weight of the squared error over timesteps; the hybrid loss takes ``uniform`` only.
        density: How training draws timesteps.
    """

    schedule: ScheduleName = "cosine"
    num_timesteps: int = 1000
    parameterisation: Parameterisation = "eps"
    variance: VarianceKind = "learned_range"
    vlb_weight: float = 0.001
    weighting: LossWeighting = "uniform"
    density: TimestepDensity = field(default_factory=TimestepDensity)

    @property
    def learns_variance(self) -> bool:
        """Whether the network outputs a variance beside its prediction."""
        return self.variance == "learned_range"


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn unless a call says otherwise.

    Args:
        sampler: Sampler.
        steps: Number of steps, or a spacing such as "ddim25" or "fast27".
        shift: Above 1, moves evenly spaced steps to high noise.
        guidance_scale: Of classifier-free guidance; 1 is the plain conditional prediction.
        eta: Fresh noise in the steps of ddim: 0 none, 1 as much as in ddpm's, above 1 more; other samplers have none.

    Raises:
        ConfigError: ``eta`` below 0.
    """

    sampler: Literal["ddpm", "ddim", "dpm++"] = "dpm++"
    steps: int | str = 25
    shift: float = 1.0
    guidance_scale: float = 1.0
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise ConfigError(
                f"sampling.eta: {self.eta} is negative; 0 means no fresh noise, 1 as much as in ddpm's steps"
            )


class DiffusionModel(nn.Module):
    """Base of the models that are trained to denoise.

    Args:
        objective: What the network predicts and how its error counts.
        sampling: Defaults of ``sample``.
        clip_x0: Predictions of x_0 are clamped to [-clip_x0, clip_x0] while sampling; None leaves them.
    """

    def __init__(self, objective: Objective, sampling: Sampling, clip_x0: float | None) -> None:
        super().__init__()
        self.objective, self.sampling, self.clip_x0 = objective, sampling, clip_x0
        self.schedule: NoiseSchedule = make_schedule(objective.schedule, objective.num_timesteps)

    def denoising_loss(
        self, call: NetworkCall, x0: Tensor, noise: Tensor, timestep: Tensor, condition: Condition
    ) -> dict[str, Tensor]:
        """Return the loss of each sample, (B,), under "loss", and its parts beside it.

        Args:
            call: The network.
            x0: (B, ...) clean data.
            noise: Like ``x0``, standard normal.
            timestep: (B,) in 0..T-1.
            condition: Named tensors (B, ...).
        """
        o, schedule = self.objective, self.schedule
        x_t = diffuse(schedule, x0, noise, timestep)
        output = call(x_t.to(dtype=dtype_of(self)), timestep, self._in_own_precision(condition))
        if o.learns_variance:
            parts = hybrid(schedule, o.parameterisation, output, x0, noise, x_t, timestep, o.vlb_weight)
            return {"loss": parts.total, "mse": parts.simple, "vlb": parts.vlb}
        error = mse(output, prediction_target(o.parameterisation, schedule, x0, noise, timestep))
        weight = loss_weight(o.weighting, o.parameterisation, schedule, timestep)
        return {"loss": weight * error, "mse": error}

    def denoise(
        self,
        call: NetworkCall,
        x_T: Tensor,
        condition: Condition,
        null: Condition,
        noise: NoiseStream,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
        shared_frames: bool = False,
    ) -> Tensor:
        """Sample from noise ``x_T`` (B, ...) to data.

        Args:
            call: The network.
            x_T: Standard normal noise.
            condition: Named tensors (B, ...).
            null: The dropped condition, the same names; used where the guidance scale is not 1.
            noise: Source of the noise of each step.
            sampling: How to sample; the model's own settings when None.
            on_step: Told (steps done, steps in all).
            shared_frames: Every frame gets the same noise.
        """
        s = sampling or self.sampling
        steps = spaced_timesteps(self.objective.num_timesteps, s.steps, s.shift)
        schedule = respace(self.schedule, steps)
        channels, dtype = x_T.shape[1], dtype_of(self)
        condition, null = self._in_own_precision(condition), self._in_own_precision(null)

        def step(x_t: Tensor, t: Tensor) -> Denoised:
            timestep = schedule.timesteps.to(t.device)[t]
            output = classifier_free_guidance(
                call, x_t.to(dtype=dtype), timestep, condition, null, s.guidance_scale, channels
            )
            return self._read(schedule, output, x_t, t)

        sampler = sampler_of(s.sampler, s.eta)
        return sampler(step, x_T, schedule, lambda: noise.draw(x_T.shape[1:], shared_frames), on_step)

    def _in_own_precision(self, condition: Condition) -> Condition:
        """Give embeddings and pictures the type of the weights; rates (B,) stay exact, as timesteps do."""
        dtype = dtype_of(self)
        return {k: v.to(dtype=dtype) if v.is_floating_point() and v.ndim > 1 else v for k, v in condition.items()}

    def _read(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Denoised:
        """Split a network output into the predicted x_0 and the log variance of the step."""
        o, channels = self.objective, x_t.shape[1]
        x0 = predict_x0(o.parameterisation, schedule, output[:, :channels], x_t, t)
        x0 = x0 if self.clip_x0 is None else x0.clamp(-self.clip_x0, self.clip_x0)
        if o.variance == "learned_range":
            return Denoised(x0, learned_range_log_variance(schedule, output[:, channels:], t))
        return Denoised(x0, fixed_log_variance(o.variance, schedule, x_t, t))


def to_residual(video: Tensor, base: Tensor, std: float | None) -> Tensor:
    """Return what is denoised beside a first guess ``base``: the difference from it over ``std``, if that is set."""
    return video if std is None else (video - base) / std


def from_residual(x0: Tensor, base: Tensor, std: float | None) -> Tensor:
    """Undo ``to_residual``."""
    return x0 if std is None else base + x0 * std


def unshuffle(video: Tensor, factor: int) -> Tensor:
    """Fold factor x factor pixels of (B, C, F, H, W) into channels: (B, C*factor^2, F, H/factor, W/factor)."""
    if factor == 1:
        return video
    folded = fn.pixel_unshuffle(video.transpose(1, 2), factor)
    return folded.transpose(1, 2)


def shuffle(video: Tensor, factor: int) -> Tensor:
    """Undo ``unshuffle``."""
    if factor == 1:
        return video
    return fn.pixel_shuffle(video.transpose(1, 2), factor).transpose(1, 2)


def device_of(module: nn.Module) -> torch.device:
    """Return where the parameters of ``module`` are."""
    return next(module.parameters()).device


def dtype_of(module: nn.Module) -> torch.dtype | None:
    """Return the type of the parameters of ``module``; None if it has none."""
    return next((parameter.dtype for parameter in module.parameters()), None)
