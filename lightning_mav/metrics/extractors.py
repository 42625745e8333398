"""Networks that turn videos into features or logits, behind one Protocol, each with a fingerprint.

A fingerprint stands for weights and preprocessing; features of different fingerprints must never meet in one number.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_mav.errors import DataError


class Extractor(Protocol):
    """Videos to features."""

    @property
    def name(self) -> str:
        """For tables and error messages."""
        ...

    @property
    def dim(self) -> int:
        """D, the width of a feature."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with weights and preprocessing."""
        ...

    def __call__(self, video: Tensor) -> Tensor:
        """Return float32 features (B, D) of uint8 videos (B, 3, F, H, W)."""
        ...


@dataclass(frozen=True)
class NetworkExtractor:
    """An ``Extractor`` made of a preprocessing and a frozen network, which follows its videos and runs in float32.

    Attributes:
        name: For tables and error messages.
        network: Takes what ``preprocess`` makes, returns (B, D).
        preprocess: From 8-bit frames to the network's input; its ``repr`` enters the fingerprint.
        dim: D.
        frames: The least and the greatest number of frames that the network takes; None for no bound.
        weights: What the weights are known by, their checksum or seed.
    """

    name: str
    network: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    dim: int
    frames: tuple[int, int | None]
    weights: str

    @property
    def fingerprint(self) -> str:
        """Sixteen digits for name, weights and preprocessing."""
        return hashlib.sha256(repr((self.name, self.weights, self.preprocess)).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def __call__(self, video: Tensor) -> Tensor:
        """Return float32 features (B, D) of uint8 videos (B, 3, F, H, W).

        Raises:
            DataError: Videos that are not 8-bit, or have more or fewer frames than the network takes.
        """
        if video.ndim != 5 or video.dtype != torch.uint8:
            raise DataError(f"{self.name} takes uint8 videos (B, 3, F, H, W), not {video.dtype} {tuple(video.shape)}")
        least, most = self.frames
        if not least <= video.shape[2] <= (most or video.shape[2]):
            bound = f"exactly {least}" if least == most else f"at least {least}"
            raise DataError(f"{self.name} needs {bound} frames, but the videos have {video.shape[2]}")
        with torch.autocast(video.device.type, enabled=False):
            features: Tensor = self.network.to(video.device)(self.preprocess(video))
        return features
