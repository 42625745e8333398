"""How 8-bit frames become a network's input. FVD differs by tens of percent between conventions, so each is data."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Untouched:
    """Leaves 8-bit frames as they are, for networks that resize and rescale them."""

    def __call__(self, video: Tensor) -> Tensor:
        """Return the video."""
        return video


@dataclass(frozen=True)
class Preprocess:
    """Geometry and range of an input; part of every extractor's fingerprint.

    Attributes:
        size: Height and width of the result; None leaves the frames as they are, for networks that resize them.
        aspect: "squash" ignores the aspect; "crop" scales the short side, then cuts the middle.
        filter: Of the resampling.
        antialias: Whether shrinking averages.
        low: What 0 becomes.
        high: What 255 becomes.
        mean: Subtracted of each colour after that.
        std: Divided by after that.
    """

    size: int | None
    aspect: Literal["squash", "crop"] = "squash"
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = False
    low: float = -1.0
    high: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, video: Tensor) -> Tensor:
        """Turn uint8 videos (B, 3, F, H, W) into float32 (B, 3, F, size, size)."""
        b, _, f = video.shape[:3]
        frames = video.transpose(1, 2).flatten(0, 1).float()
        if self.size is not None:
            frames = self._cut(self._resize(frames, self.size), self.size)
        frames = frames / 255 * (self.high - self.low) + self.low
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((frames - mean) / std).view(b, f, *frames.shape[1:]).transpose(1, 2)

    def _resize(self, frames: Tensor, size: int) -> Tensor:
        height, width = frames.shape[-2:]
        short = min(height, width)
        target = [size, size]
        if self.aspect == "crop":
            target = [round(height * size / short), round(width * size / short)]
        if target == [height, width]:
            return frames
        return F.interpolate(frames, target, mode=self.filter, align_corners=False, antialias=self.antialias)

    def _cut(self, frames: Tensor, size: int) -> Tensor:
        top, left = ((side - size) // 2 for side in frames.shape[-2:])
        return frames[..., top : top + size, left : left + size]
