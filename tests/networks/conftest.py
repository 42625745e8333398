import pytest
import torch

from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.unet import UNet, UNetConfig

SMALL = {
    "channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_downsamples": (2,),
    "head_channels": 16,
    "norm_groups": 8,
    "image_embedding_dim": 12,
    "context_dim": 24,
}


@pytest.fixture
def make_unet():
    """Build a small U-Net whose weights are random everywhere: a fresh one outputs zeros and proves nothing."""

    def make(temporal: bool = False, in_channels: int = 3, out_channels: int = 3, extra_channels: int = 0, **changes):
        config = UNetConfig(**{**SMALL, "fps": temporal, "temporal": TemporalConfig() if temporal else None, **changes})
        return UNet(config, in_channels, out_channels, extra_channels)

    return make


@pytest.fixture
def randomise():
    def fill(network: torch.nn.Module, std: float = 0.08) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, std, generator=generator)
        return network

    return fill
