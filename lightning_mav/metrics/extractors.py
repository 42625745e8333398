"""Networks that turn videos into features or logits, behind one Protocol, each with a fingerprint.

A fingerprint stands for weights and preprocessing; features of different fingerprints must never meet in one number.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_mav.errors import CheckpointError, DataError
from lightning_mav.metrics.c3d import NUM_CLASSES, NUM_FRAMES, load_c3d
from lightning_mav.metrics.i3d import I3D, LEAST_FRAMES, NUM_LOGITS
from lightning_mav.metrics.preprocess import Preprocess
from lightning_mav.metrics.weights import find_weights
from lightning_mav.seeding import hashed_seed


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
    """An ``Extractor`` made of a preprocessing and a frozen network, which always runs in float32.

    Attributes:
        name: For tables and error messages.
        network: Takes what ``preprocess`` makes, returns (B, D).
        preprocess: From 8-bit frames to the network's input.
        dim: D.
        frames: The least and the greatest number of frames that the network takes; None for no bound.
        weights: What the weights are known by, their checksum or seed.
    """

    name: str
    network: nn.Module
    preprocess: Preprocess
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
            features: Tensor = self.network(self.preprocess(video))
        return features


def i3d(path: str | None = None) -> NetworkExtractor:
    """Return FVD's extractor: 400 logits of I3D on frames squashed to 224 pixels.

    Args:
        path: The state dict that VideoGPT uses; see ``weights.find_weights`` for where it is looked for otherwise.

    Raises:
        CheckpointError: No such file, or one with other keys.
    """
    file = find_weights("i3d", path)
    network = I3D()
    try:
        network.load_state_dict(torch.load(file.path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file.path}: is no state dict of I3D ({reason}); fetch it again") from error
    frames = (LEAST_FRAMES, None)
    return NetworkExtractor("i3d", network.eval(), Preprocess(224), NUM_LOGITS, frames, file.sha256)


def c3d(path: str | None = None, mean: str | None = None) -> NetworkExtractor:
    """Return the classifier of UCF-101's Inception Score in TGANv2's convention: 101 logits of 16 frames.

    Args:
        path: conv3d_deepnetA_ucf.npz; see ``weights.find_weights`` for where it is looked for otherwise.
        mean: mean2.npz, likewise.

    Raises:
        CheckpointError: A missing or wrong file.
    """
    weights, mean_clip = find_weights("c3d", path), find_weights("c3d_mean", mean)
    network = load_c3d(weights.path, mean_clip.path)
    known_by = weights.sha256 + mean_clip.sha256
    return NetworkExtractor("c3d", network, Preprocess(None), NUM_CLASSES, (NUM_FRAMES, NUM_FRAMES), known_by)


def random_extractor(dim: int = 64, size: int = 32, seed: int = 0) -> NetworkExtractor:
    """Return an extractor that needs no file: random weights, calibrated so that features follow the picture.

    It checks that everything runs; its numbers mean nothing beside others'.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed("random_extractor", seed))
        network = _RandomNetwork(dim)
        network.calibrate(torch.rand(16, 3, 8, size, size) * 2 - 1)
    return NetworkExtractor("random", network.eval(), Preprocess(size), dim, (1, None), f"seed {seed}")


class _RandomNetwork(nn.Module):
    """Three strided convolutions; mean and deviation over space and time become features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv3d(a, b, 3, (1, 2, 2), padding=1), nn.BatchNorm3d(b, momentum=None), nn.ReLU())
                for a, b in pairwise(widths)
            )
        )
        self.last = nn.Linear(2 * widths[-1], dim)

    @torch.no_grad()
    def calibrate(self, video: Tensor) -> None:
        """Set the normalisations to the statistics of ``video``; without that all features are nearly equal."""
        self.train()(video)

    def forward(self, video: Tensor) -> Tensor:
        x = self.layers(video).flatten(2)
        out: Tensor = self.last(torch.cat([x.mean(2), x.std(2)], 1))
        return out
