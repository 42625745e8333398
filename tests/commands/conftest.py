"""A whole pipeline of untrained networks, as small as they come: 8 -> 16 -> 32 pixels."""

import pytest
import torch

from lightning_mav.checkpoint.models import save_model
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.models.interpolation import Interpolation, InterpolationConfig
from lightning_mav.models.prior import Prior, PriorConfig
from lightning_mav.models.super_resolution import SpacetimeSR, SpatialSR, SuperResolutionConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig

WIDTH = 8
PLAIN = Objective(parameterisation="v", variance="fixed_small")
FAST = Sampling(sampler="dpm++", steps=2)


def unet(**settings):
    sizes = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 8, "norm_groups": 4}
    return UNetConfig(**{**sizes, "attention_downsamples": (2,), "temporal": TemporalConfig(), **settings})


def sr_config(**settings):
    plain = {"attention_downsamples": (), "mid_attention": False, "image_embedding_dim": None, "context_dim": None}
    return SuperResolutionConfig(unet(**plain, **settings), PLAIN, FAST, scale=2, residual_std=0.2)


def models():
    clip = SmallClipConfig(WIDTH, image_size=8, image_channels=(8, 8), text_width=8, text_layers=1, text_heads=1)
    prior = PriorTransformerConfig(embedding_dim=WIDTH, states_dim=8, width=16, num_layers=1, num_heads=2)
    network = unet(image_embedding_dim=WIDTH, context_dim=8, fps=True)
    decoder = DecoderConfig(network, PLAIN, FAST, image_size=8)
    return {
        "clip": Clip(ClipConfig(clip)),
        "prior": Prior(PriorConfig(prior, sampling=FAST)),
        "decoder": Decoder(decoder),
        "interpolation": Interpolation(InterpolationConfig(**vars(decoder))),
        "sr_spacetime": SpacetimeSR(sr_config()),
        "sr_spatial": SpatialSR(sr_config(temporal=None)),
    }


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """A folder with all six models, no weight of which is zero."""
    folder = tmp_path_factory.mktemp("pipeline")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, model in models().items():
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            save_model(model, folder / name)
    return folder
