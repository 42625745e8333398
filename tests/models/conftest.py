"""Small networks whose weights are random everywhere: a fresh one outputs zeros and proves nothing."""

import pytest
import torch

from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.networks.unet import UNetConfig

SMALL = {
    "channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_downsamples": (2,),
    "head_channels": 8,
    "norm_groups": 4,
    "image_embedding_dim": 6,
    "context_dim": 8,
}


@pytest.fixture(scope="session")
def small_unet():
    """Return a function that gives the configuration of a small U-Net, with changes."""
    return lambda **changes: UNetConfig(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def small_sr_unet(small_unet):
    """The same for super-resolution: without attention and conditions."""
    return lambda **changes: small_unet(
        attention_downsamples=(), mid_attention=False, image_embedding_dim=None, context_dim=None, **changes
    )


@pytest.fixture(scope="session")
def randomise():
    """Return a function that fills a model with random weights and freezes it."""

    def fill(model, std=0.2):
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data.normal_(0, std, generator=generator)
        return model.eval().requires_grad_(False)

    return fill


@pytest.fixture(scope="session")
def stream():
    """Return a function that gives the noise of a batch."""
    return lambda batch, seed=0: NoiseStream.keyed([("test", seed, i) for i in range(batch)])


@pytest.fixture(scope="session")
def losses_while_training():
    """Return a function that trains a model on one batch with one noise, and returns its first and last loss."""

    def train(model, batch, steps=25, lr=3e-3):
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(batch["video"].shape, generator=draw)
        timestep = torch.randint(0, 1000, (len(noise),), generator=draw)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        losses = []
        for _ in range(steps):
            losses.append(model.loss(batch, noise, timestep)["loss"].mean())
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        return losses[0].item(), losses[-1].item()

    return train
