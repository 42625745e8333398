import pytest

from lightning_mav.checkpoint.models import save_model
from lightning_mav.models import Clip, Decoder, Interpolation, Prior, SpacetimeSR, SpatialSR
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.clip import ClipConfig
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.models.interpolation import InterpolationConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig

SAMPLING = Sampling(sampler="ddim", steps=2)
CHEAP = {"sampling": SAMPLING, "objective": Objective(parameterisation="v", variance="fixed_small")}


def unet(**changes):
    tiny = {"channels": 8, "channel_mult": (1,), "num_res_blocks": 1, "norm_groups": 4, "head_channels": 8}
    context = {"attention_downsamples": (), "mid_attention": False, "image_embedding_dim": None, "context_dim": None}
    return UNetConfig(**tiny | context | changes)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory):
    """A pipeline folder of fresh, tiny models: 16 -> 32 -> 64 pixels."""
    folder = tmp_path_factory.mktemp("pipeline")
    image = DecoderConfig(unet(image_embedding_dim=8, context_dim=8), image_size=16, unshuffle=2, **CHEAP)
    video = image.inflated(TemporalConfig())
    transformer = PriorTransformerConfig(8, 8, width=16, num_layers=1, num_heads=2)
    enlarging = SuperResolutionConfig(unet(), scale=2, residual_std=0.1, **CHEAP)
    models = {
        "clip": Clip(ClipConfig(SmallClipConfig(8, 16, (8,), 8, 1, 2))),
        "prior": Prior(PriorConfig(transformer, sampling=SAMPLING)),
        "decoder_image": Decoder(image),
        "decoder": Decoder(video),
        "interpolation": Interpolation(InterpolationConfig(**vars(video))),
        "sr_spacetime": SpacetimeSR(enlarging),
        "sr_spatial": SpatialSR(enlarging),
    }
    for name, model in models.items():
        save_model(model, folder / name)
    return folder
