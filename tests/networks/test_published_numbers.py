"""Karlo's networks and its guided sampling give the numbers of the code that published them (commit 3c68a50).

The fixture holds outputs only, of that code at a small width in float32. Weights, inputs and noise are functions of
their names, so that both sides have the same.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.models.prior import Prior, PriorConfig
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.unet import UNet, UNetConfig
from tests.by_name import drawn, with_weights

FIXTURE = load_file(Path(__file__).parent / "fixtures" / "karlo.safetensors")
PRIOR = PriorTransformerConfig(embedding_dim=24, states_dim=24, width=32, num_layers=2, num_heads=2)
SMALL = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 16}
DECODER = UNetConfig(**SMALL, attention_downsamples=(2,), image_embedding_dim=24, text_dim=24, context_dim=32)
SUPER_RESOLUTION = UNetConfig(
    **SMALL,
    attention_downsamples=(),
    mid_attention=False,
    scale_shift=False,
    image_embedding_dim=None,
    context_dim=None,
)
TIMESTEP = torch.tensor([5, 871])


def text(name, lengths):
    """Random text states and embeddings, with this many tokens each."""
    batch = len(lengths)
    mask = torch.arange(77) < torch.tensor(lengths)[:, None]
    return TextEncoding(drawn(f"{name} embedding", batch, 24), drawn(f"{name} states", batch, 77, 24), mask)


TEXT, EMPTY = text("text", [9, 77]), text("empty text", [2])


class Drawn:
    """The noise of x_T, then that of every step."""

    def __init__(self, name):
        self.name, self.count = name, 0

    def draw(self, shape, shared_frames=False):
        self.count += 1
        return drawn(f"{self.name} {self.count}", 2, *shape)


def assert_published(output, name):
    assert FIXTURE[name].std() > 0.1
    assert (output - FIXTURE[name]).abs().max() <= 1e-4


def prior():
    model = Prior(PriorConfig(PRIOR, sampling=Sampling("ddpm", 25), num_candidates=1))
    with_weights(model.network)
    model.embedding_mean.copy_(drawn("mean", 24))
    model.embedding_std.copy_(1 + drawn("deviation", 24).abs())
    return model


def decoder():
    # Karlo's scale of 8 makes of a random network one that turns rounding into 1e-3 after a few steps, there as here.
    model = Decoder(DecoderConfig(DECODER, Objective(), Sampling("ddpm", 10, guidance_scale=2.0), image_size=16))
    with_weights(model.network)
    return model


def test_prior():
    condition = TEXT.as_condition()
    assert_published(prior().network(drawn("x_t", 2, 24), TIMESTEP, **condition), "prior")


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_guided_samples_of_the_prior(scale):
    """At a scale of 4, Karlo's, and of 8, where the bound of 10 on a predicted embedding acts."""
    model, noise = prior(), Drawn("prior noise")
    with torch.no_grad():
        samples = model.sample(TEXT, EMPTY, noise, replace(model.sampling, guidance_scale=scale))
    assert_published(samples, f"prior samples, {scale:g}")


def decoder_condition(dropped):
    image = {"image_embedding": drawn("image", 2, 24), "image_dropped": torch.tensor([dropped, dropped])}
    encoded = EMPTY if dropped else TEXT
    return image | {name: value.expand(2, *value.shape[1:]) for name, value in encoded.as_condition().items()}


@pytest.mark.parametrize(("name", "dropped"), [("decoder", False), ("decoder, null", True)])
def test_decoder(name, dropped):
    output = decoder().network(drawn("pixels", 2, 3, 1, 16, 16), TIMESTEP, **decoder_condition(dropped))
    assert_published(output[:, :, 0], name)


def test_guided_samples_of_the_decoder():
    model, noise = decoder(), Drawn("decoder noise")
    x_T = noise.draw((3, 1, 16, 16))
    samples = model.denoise(model.call, x_T, decoder_condition(False), decoder_condition(True), noise)
    assert_published(samples[:, :, 0], "decoder samples")


def test_super_resolution():
    network = with_weights(UNet(SUPER_RESOLUTION, in_channels=6))
    both = torch.cat([drawn("pixels", 2, 3, 1, 16, 16), drawn("low resolution", 2, 3, 1, 16, 16).clamp(-1, 1)], 1)
    assert_published(network(both, TIMESTEP)[:, :, 0], "super-resolution")
