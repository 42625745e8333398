"""Super-resolution (paper section 3.2, "Spatial-temporal super-resolution"): SR_l over space and time, SR_h over space.

Both see the noisy high-resolution frames with the upsampled low-resolution ones concatenated after them; neither has
attention, so they run at any size. SR_h works frame by frame with the same noise for every frame.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as fn
from torch import Tensor

from lightning_mav.diffusion.guidance import Condition
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.samplers import OnStep
from lightning_mav.errors import ConfigError
from lightning_mav.models.base import (
    DiffusionModel,
    Objective,
    Sampling,
    device_of,
    from_residual,
    shuffle,
    to_residual,
    unshuffle,
)
from lightning_mav.networks.unet import UNet, UNetConfig

Enlargement = Literal["bicubic", "bicubic_antialias", "bilinear"]


def _sr_network() -> UNetConfig:
    """Karlo's super-resolution network."""
    return UNetConfig(
        attention_downsamples=(), mid_attention=False, scale_shift=False, image_embedding_dim=None, context_dim=None
    )


@dataclass(frozen=True)
class SuperResolutionConfig:
    """A super-resolution model.

    Args:
        network: The U-Net, without attention.
        objective: What it predicts and how it is trained.
        sampling: How samples are drawn.
        scale: Enlargement of height and width.
        enlargement: How the input is brought to the output's size; published networks know only their own way.
        unshuffle: Pixels folded into channels at the model's edge, per side.
        residual_std: If set, x_0 is the difference from the upsampled input divided by this; small models learn that
            far sooner. None trains on the pixels, as published networks do.
        frames_per_chunk: Most frames that go through the network at once while sampling.
    """

    network: UNetConfig = field(default_factory=_sr_network)
    objective: Objective = field(default_factory=lambda: Objective(variance="fixed_small"))
    sampling: Sampling = field(default_factory=lambda: Sampling(sampler="ddim", steps=27))
    scale: int = 4
    enlargement: Enlargement = "bicubic"
    unshuffle: int = 1
    residual_std: float | None = None
    frames_per_chunk: int = 80


class SuperResolution(DiffusionModel):
    """Enlarges frames; ``shared_noise`` tells SR_h from SR_l."""

    config_class = SuperResolutionConfig
    shared_noise = False

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__(config.objective, config.sampling, clip_x0=None if config.residual_std else 1.0)
        if config.frames_per_chunk < 1:
            raise ConfigError(f"model.config.frames_per_chunk is {config.frames_per_chunk}; at least 1 frame is needed")
        self.config = config
        pixels = 3 * config.unshuffle**2
        variance = 2 if config.objective.learns_variance else 1
        self.network = UNet(config.network, in_channels=2 * pixels, out_channels=pixels * variance)

    def loss(self, batch: Condition, noise: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        """Return the loss of each sample, (B,), under "loss", and its parts.

        Args:
            batch: "video" (B, 3, F, H, W) and "low_res" (B, 3, F, H/scale, W/scale), in [-1, 1].
            noise: Like the video.
            timestep: (B,) in 0..T-1.
        """
        base = upsample(batch["low_res"], self.config.scale, self.config.enlargement)
        x0 = to_residual(batch["video"], base, self.config.residual_std)
        return self.denoising_loss(self.call, x0, noise, timestep, {"base": base})

    @torch.no_grad()
    def sample(
        self, low_res: Tensor, noise: NoiseStream, sampling: Sampling | None = None, on_step: OnStep | None = None
    ) -> Tensor:
        """Enlarge a video or image.

        Args:
            low_res: (B, 3, F, h, w) in [-1, 1].
            noise: One source of noise per sample.
            sampling: How to sample; the model's own settings when None.
            on_step: Told (steps done, steps in all).

        Returns:
            (B, 3, F, scale*h, scale*w) in [-1, 1].
        """
        base = upsample(low_res.to(device_of(self)), self.config.scale, self.config.enlargement)
        x_T = noise.draw(base.shape[1:], self.shared_noise).to(base)
        condition = {"base": base}
        x0 = self.denoise(
            self._in_chunks(self.call), x_T, condition, condition, noise, sampling, on_step, self.shared_noise
        )
        return from_residual(x0, base, self.config.residual_std).clamp(-1, 1)

    def call(self, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the network on pixels (B, 3, F, H, W) beside the upsampled input "base"."""
        factor = self.config.unshuffle
        both = torch.cat([unshuffle(x_t, factor), unshuffle(condition["base"], factor)], 1)
        output: Tensor = self.network(both, timestep)
        if self.objective.learns_variance:
            return torch.cat([shuffle(half, factor) for half in output.chunk(2, 1)], 1)
        return shuffle(output, factor)

    def _in_chunks(self, call: Callable[[Tensor, Tensor, Condition], Tensor]) -> Callable[..., Tensor]:
        """Let ``call`` see at most ``frames_per_chunk`` frames at once."""

        def chunked(x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
            limit, overlap = self.config.frames_per_chunk, 0 if self.config.network.temporal is None else 8
            windows = cross_fades(x_t.shape[2], limit, overlap)
            if len(windows) == 1:
                return call(x_t, timestep, condition)
            out = None
            for start, weight in windows:
                part = slice(start, start + len(weight))
                y = call(x_t[:, :, part], timestep, {k: v[:, :, part] for k, v in condition.items()})
                out = y.new_zeros(*y.shape[:2], *x_t.shape[2:]) if out is None else out
                out[:, :, part] += y * weight.to(y)[:, None, None]
            assert out is not None
            return out

        return chunked


class SpacetimeSR(SuperResolution):
    """SR_l^t: enlarges over space and time, so that invented detail agrees between frames."""

    name = "sr_spacetime"


class SpatialSR(SuperResolution):
    """SR_h: enlarges every frame on its own, with the same noise for every frame."""

    name = "sr_spatial"
    shared_noise = True


def upsample(video: Tensor, scale: int, enlargement: Enlargement = "bicubic") -> Tensor:
    """Enlarge (B, C, F, H, W) in [-1, 1]: what the networks see, and the baseline that they are judged by.

    ``bicubic_antialias`` smooths nothing here, but has another kernel (-0.5 instead of -0.75).
    """
    b, c, f, h, w = video.shape
    frames = video.transpose(1, 2).reshape(b * f, c, h, w)
    mode, _, antialias = enlargement.partition("_")
    large = fn.interpolate(frames, scale_factor=scale, mode=mode, antialias=bool(antialias)).clamp(-1, 1)
    return large.view(b, f, c, h * scale, w * scale).transpose(1, 2)


def cross_fades(num_frames: int, limit: int, overlap: int) -> list[tuple[int, Tensor]]:
    """Cut frames into windows of at most ``limit`` that fade into each other over ``overlap`` frames.

    Returns:
        (first frame, weight of each frame) per window; the weights of every frame add up to 1.
    """
    overlap = min(overlap, limit // 2)
    starts = [0]
    while starts[-1] + limit < num_frames:
        starts.append(starts[-1] + limit - overlap)
    ramps = []
    for start in starts:
        place = torch.arange(min(limit, num_frames - start)) + 1.0
        ramps.append(torch.minimum(place, place.flip(0)).clamp(max=max(overlap, 1)))
    total = torch.zeros(num_frames)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + len(ramp)] += ramp
    return [(start, ramp / total[start : start + len(ramp)]) for start, ramp in zip(starts, ramps, strict=True)]
