"""The interpolation network (up-arrow F, paper section 3.3): masked frames in, all frames out.

Four further input channels hold the given frames (zero where missing) and the mask that tells them apart; everything
else is the video decoder, from which training starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_mav.diffusion.guidance import Condition
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.process import prediction_target
from lightning_mav.diffusion.samplers import OnStep
from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Sampling, device_of, from_residual, to_residual
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.networks.encoders import TextPair

MaskKind = Literal["regular", "first", "last", "both_ends", "prefix", "suffix"]


@dataclass(frozen=True)
class MaskDistribution:
    """Which frames training gives: the tasks of section 3.3 and their shares.

    Args:
        skips: Frame skips of ``regular`` masks, drawn evenly.
        regular: Every skip-th frame is given: interpolation.
        first: Only the first frame is given: animation of an image.
        last: Only the last frame is given.
        both_ends: The first and the last frame are given: interpolation between two images.
        prefix: Some leading frames are given: extrapolation forward.
        suffix: Some trailing frames are given: extrapolation backward.
    """

    skips: tuple[int, ...] = (2, 3, 4, 5)
    regular: float = 0.5
    first: float = 0.15
    last: float = 0.05
    both_ends: float = 0.1
    prefix: float = 0.1
    suffix: float = 0.1

    def draw(self, num_frames: int, generator: torch.Generator) -> Tensor:
        """Return a mask (num_frames,) bool, True where a frame is given."""
        kinds: tuple[MaskKind, ...] = ("regular", "first", "last", "both_ends", "prefix", "suffix")
        shares = torch.tensor([float(getattr(self, kind)) for kind in kinds])
        kind = kinds[int(torch.multinomial(shares, 1, generator=generator))]
        return frame_mask(kind, num_frames, self._amount(kind, num_frames, generator))

    def _amount(self, kind: MaskKind, num_frames: int, generator: torch.Generator) -> int:
        if kind == "regular":
            return self.skips[int(torch.randint(len(self.skips), (), generator=generator))]
        return int(torch.randint(2, max(3, num_frames // 2 + 1), (), generator=generator))


def frame_mask(kind: MaskKind, num_frames: int, amount: int = 1) -> Tensor:
    """Return a mask (num_frames,) bool, True where a frame is given; ``amount`` is the skip or the number given."""
    mask = torch.zeros(num_frames, dtype=torch.bool)
    given = {
        "regular": slice(None, None, amount),
        "first": slice(0, 1),
        "last": slice(-1, None),
        "both_ends": slice(None, None, max(num_frames - 1, 1)),
        "prefix": slice(0, amount),
        "suffix": slice(-amount, None),
    }
    mask[given[kind]] = True
    return mask


@dataclass(frozen=True)
class InterpolationConfig(DecoderConfig):
    """The video decoder's configuration, and two choices more.

    Args:
        residual_std: If set, x_0 is the difference from a linear blend of the given frames divided by this; small
            models learn that sooner and keep still surroundings still. Published networks predict the frames.
        shared_noise: All frames of a sample start from the same noise. What a single step leaves of it then stands
            still instead of flickering.
    """

    residual_std: float | None = None
    shared_noise: bool = False


class Interpolation(Decoder):
    """F: the video decoder with 3 masked RGB channels and 1 mask channel more, 7 pixel channels in all."""

    name = "interpolation"
    config_class = InterpolationConfig
    extra_pixel_channels = 4
    config: InterpolationConfig

    def __init__(self, config: InterpolationConfig) -> None:
        super().__init__(config)
        self.shared_noise = config.shared_noise
        if config.residual_std is not None:
            self.clip_x0 = None

    def loss(self, batch: Condition, noise: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        """Return the loss of each sample over its missing frames, (B,).

        Args:
            batch: As the decoder's, and "frame_mask" (B, F) bool, True where a frame is given.
            noise: Like the video.
            timestep: (B,) in 0..T-1.
        """
        video, mask = batch["video"], batch["frame_mask"][:, None, :, None, None]
        x0 = to_residual(video, blended(video, batch["frame_mask"]), self.config.residual_std)
        ideal = prediction_target(self.objective.parameterisation, self.schedule, x0, noise, timestep)
        if self.objective.learns_variance:
            ideal = torch.cat([ideal, -torch.ones_like(ideal)], 1)  # -1 is the true posterior's variance

        def missing_frames(x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
            return torch.where(mask, ideal, self.call(x_t, timestep, condition))

        condition = self._condition(batch) | {"extra": _given(video, batch["frame_mask"])}
        losses = self.denoising_loss(missing_frames, x0, noise, timestep, condition)
        share = (~batch["frame_mask"]).float().mean(1)
        return {name: value / share for name, value in losses.items()}

    def fill(
        self,
        video: Tensor,
        mask: Tensor,
        image_embedding: Tensor,
        fps: Tensor,
        noise: NoiseStream,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
        text: TextPair | None = None,
    ) -> Tensor:
        """Fill in the missing frames: extrapolation, animation, interpolation.

        Args:
            video: (B, 3, F, H, W) in [-1, 1]; what stands in missing frames does not matter.
            mask: (B, F) bool, True where a frame is given; given frames come back exactly.
            image_embedding: (B, D) CLIP image embedding.
            fps: (B,) frames per second of the result, 1 to 30.
            noise: One source of noise per sample.
            sampling: How to sample; the model's own settings when None.
            on_step: Told (steps done, steps in all).
            text: As the decoder's.
        """
        device = device_of(self)
        video, mask = video.to(device), mask.to(device)
        condition = {
            "image_embedding": image_embedding.to(device),
            "image_dropped": torch.zeros(len(video), dtype=torch.bool, device=device),
            "fps": fps.to(device),
            "extra": _given(video, mask),
        }
        x0 = self._sample(condition, noise, tuple(video.shape[1:]), sampling, on_step, text)
        filled = from_residual(x0, blended(video, mask), self.config.residual_std).clamp(-1, 1)
        return torch.where(mask[:, None, :, None, None], video, filled)

    def interpolate(
        self,
        video: Tensor,
        frame_skip: int,
        image_embedding: Tensor,
        fps: Tensor,
        noise: Sequence[NoiseStream],
        mode: Literal["window", "full"] = "window",
        window: int = 16,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
        text: TextPair | None = None,
    ) -> Tensor:
        """Raise the frame rate by ``frame_skip``: K frames become (K-1) frame_skip + 1.

        Args:
            video: (B, 3, K, H, W) in [-1, 1].
            frame_skip: Frames from one given frame to the next.
            image_embedding: (B, D) CLIP image embedding.
            fps: (B,) frames per second of the result; clipped to 30.
            noise: For each window in turn (one for ``full``), a stream of B sources.
            mode: ``window``: windows of at most ``window`` frames that share a given end frame, as one batch;
                ``full``: one pass over all frames.
            window: The number of frames the network was trained on.
            sampling: How to sample; the model's own settings when None.
            on_step: Told (steps done, steps in all).
            text: As the decoder's.

        Returns:
            (B, 3, (K-1) frame_skip + 1, H, W); given frames come back exactly.
        """
        spread, mask = spread_frames(video, frame_skip)
        n = spread.shape[2]
        windows = plan_windows(video.shape[2], frame_skip, window) if mode == "window" else [(0, n)]
        repeat = len(windows)
        parts = self.fill(
            torch.cat([spread[:, :, start:end] for start, end in windows]),
            torch.cat([mask[start:end].expand(len(video), -1) for start, end in windows]),
            image_embedding.repeat(repeat, 1),
            fps.clamp(max=30).repeat(repeat),
            NoiseStream([g for stream in noise[:repeat] for g in stream.generators]),
            sampling,
            on_step,
            None if text is None else (text[0].repeat(repeat), text[1]),
        )
        out = torch.empty_like(spread, device=parts.device)
        for (start, end), part in zip(windows, parts.chunk(repeat), strict=True):
            out[:, :, start:end] = part
        return out


def spread_frames(video: Tensor, frame_skip: int) -> tuple[Tensor, Tensor]:
    """Put frame k of (B, C, K, H, W) at position k * frame_skip, zeros between; also return the mask (N,) bool."""
    b, c, k, h, w = video.shape
    mask = frame_mask("regular", (k - 1) * frame_skip + 1, frame_skip)
    spread = video.new_zeros(b, c, len(mask), h, w)
    spread[:, :, ::frame_skip] = video
    return spread, mask


def blended(video: Tensor, mask: Tensor) -> Tensor:
    """Blend given frames linearly over time; before the first and after the last one stands that frame.

    Args:
        video: (B, C, F, H, W); what stands in missing frames does not matter.
        mask: (B, F) bool, True where a frame is given, at least one in each video.
    """
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    before = torch.where(mask, place, -1).cummax(1).values
    after = torch.where(mask, place, mask.shape[1]).flip(1).cummin(1).values.flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after == mask.shape[1], before, after)
    share = (place - before) / (after - before).clamp(min=1)
    first, second = (_at(video, frame) for frame in (before, after))
    return torch.lerp(first, second, share[:, None, :, None, None].to(video.dtype))


def _at(video: Tensor, place: Tensor) -> Tensor:
    """Return frame ``place`` (B, F) of videos (B, C, F, H, W) at each position."""
    return video.gather(2, place[:, None, :, None, None].expand_as(video))


def plan_windows(num_given: int, frame_skip: int, window: int = 16) -> list[tuple[int, int]]:
    """Cut (K-1) skip + 1 frames into windows [start, end) that start and end on given frames and share those.

    Windows hold as many whole key intervals as fit; the last one moves back where the number does not divide.

    Raises:
        ConfigError: If not even one interval fits, or there is nothing to interpolate.
    """
    intervals = min((window - 1) // frame_skip, num_given - 1)
    if intervals < 1:
        raise ConfigError(
            f"{num_given} frames at frame_skip {frame_skip} do not fit windows of {window}; "
            f"give at least 2 frames and a frame_skip below {window}"
        )
    last = num_given - 1 - intervals
    starts = [*range(0, last, intervals), last]
    return [(start * frame_skip, (start + intervals) * frame_skip + 1) for start in starts]


def _given(video: Tensor, mask: Tensor) -> Tensor:
    """Return the further input, (B, 4, F, H, W): given frames with zeros elsewhere, and the mask."""
    m = mask[:, None, :, None, None].to(video.dtype)
    return torch.cat([video * m, m.expand(-1, -1, -1, *video.shape[-2:])], 1)
