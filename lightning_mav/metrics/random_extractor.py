"""An extractor that needs no file, so that everything runs offline; its numbers mean nothing beside others'."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_mav.metrics.extractors import NetworkExtractor
from lightning_mav.metrics.preprocess import Preprocess
from lightning_mav.seeding import hashed_seed


def random_extractor(dim: int = 64, size: int = 32, seed: int = 0) -> NetworkExtractor:
    """Return an extractor with random weights, calibrated so that features follow the picture."""
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
