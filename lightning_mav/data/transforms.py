"""From decoded frames to network input: resize, crop, flip, scale; and the degradation that super-resolution trains on.

Every random choice is drawn once per sample, so all frames of a video share it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Literal["none", "crop", "crop+flip"]


def resize_to_cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 frames (F, H, W, 3) with antialiasing to the smallest that ``height`` x ``width`` fit into."""
    high, wide = frames.shape[1:3]
    if height * wide >= width * high:
        target = [height, round(wide * height / high)]
    else:
        target = [round(high * width / wide), width]
    if target == [high, wide]:
        return frames
    planes = frames.permute(0, 3, 1, 2)
    return F.interpolate(planes, target, mode="bicubic", antialias=True).permute(0, 2, 3, 1)


def crop(frames: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Crop frames (F, H, W, 3) to ``height`` x ``width``: centred, or anywhere when a generator is given."""
    if generator is None and frames.shape[1:3] == (height, width):
        return frames
    shares = [0.5, 0.5] if generator is None else torch.rand(2, generator=generator).tolist()
    rooms = frames.shape[1] - height, frames.shape[2] - width
    top, left = (min(int(share * (room + 1)), room) for share, room in zip(shares, rooms, strict=True))
    return frames[:, top : top + height, left : left + width]


def to_network_range(frames: Tensor) -> Tensor:
    """Turn uint8 frames (F, H, W, 3) into a float32 video (3, F, H, W) in [-1, 1]."""
    return dequantise(frames.permute(3, 0, 1, 2).contiguous())


def quantise(videos: Tensor) -> Tensor:
    """Turn values in [-1, 1], in any layout, into uint8; rounded, as cutting off darkens a quarter of all levels."""
    return ((videos.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def dequantise(videos: Tensor) -> Tensor:
    """Turn uint8 values, in any layout, into float32 in [-1, 1]: the inverse of ``quantise``."""
    return videos.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_uint8(video: Tensor) -> Tensor:
    """Turn a video (3, F, H, W) in [-1, 1] into uint8 frames (F, H, W, 3)."""
    return quantise(video).permute(1, 2, 3, 0)


def prepare(frames: Tensor, height: int, width: int, augment: Augmentation, generator: torch.Generator) -> Tensor:
    """Turn decoded frames into a training video.

    Args:
        frames: uint8 (F, H, W, 3) of any size.
        height: of the result, in pixels.
        width: of the result, in pixels.
        augment: "none" crops the centre, "crop" anywhere, "crop+flip" also mirrors half of the samples.
        generator: source of the crop and the flip.

    Returns:
        float32 (3, F, height, width) in [-1, 1].
    """
    frames = resize_to_cover(frames, height, width)
    frames = crop(frames, height, width, None if augment == "none" else generator)
    if augment == "crop+flip" and torch.rand((), generator=generator) < 0.5:
        frames = frames.flip(2)
    return to_network_range(frames)


@dataclass(frozen=True)
class Degradation:
    """Degradation of a super-resolution network's low-resolution input (paper.md sections 6 and 14).

    The defaults are those of the space-time network; the spatial one blurs half of its examples
    (``probability=0.5, sigma=(0.4, 0.6)``).

    Args:
        probability: share of samples that are degraded.
        sigma: range of the Gaussian blur's standard deviation in low-resolution pixels; the kernel has 3 taps.
        noise: standard deviation of added Gaussian noise, in units of [-1, 1].
    """

    probability: float = 1.0
    sigma: tuple[float, float] = (0.6, 0.6)
    noise: float = 0.0

    def __call__(self, video: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade one image (C, H, W) or video (C, F, H, W) with one draw for all its frames."""
        chance, place = torch.rand(2, generator=generator).tolist()
        if chance >= self.probability:
            return video
        low, high = self.sigma
        degraded = gaussian_blur(video, low + (high - low) * place)
        if self.noise:
            still = torch.randn(video[:, :1].shape if video.ndim == 4 else video.shape, generator=generator)
            degraded = degraded + self.noise * still.to(video)
        return degraded


def gaussian_blur(video: Tensor, sigma: float) -> Tensor:
    """Blur the last two dimensions of ``video`` with a 3 x 3 Gaussian; edges repeat their last pixel."""
    side = torch.exp(torch.tensor(-0.5 / sigma**2)).item()
    centre, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    for dim in (-1, -2):
        size = video.shape[dim]
        before = torch.cat([video.narrow(dim, 0, 1), video.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([video.narrow(dim, 1, size - 1), video.narrow(dim, size - 1, 1)], dim)
        video = centre * video + side * (before + after)
    return video


def downsample(video: Tensor, size: int) -> Tensor:
    """Resize images (..., C, H, W) or videos (..., C, F, H, W) in [-1, 1] to ``size`` x ``size`` with antialiasing."""
    planes = video.reshape(-1, 1, *video.shape[-2:])
    small = F.interpolate(planes, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    return small.reshape(*video.shape[:-2], size, size)
