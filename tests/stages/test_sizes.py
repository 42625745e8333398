"""Sizes that a network cannot take are refused before training begins."""

from types import SimpleNamespace

import pytest

from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Objective
from lightning_mav.models.interpolation import InterpolationConfig
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.stages import DecoderStage, InterpolationStage, SpatialSRStage


@pytest.mark.parametrize("stage", [DecoderStage, InterpolationStage])
def test_a_decoder_wants_its_own_size(stage, decoder_config):
    def stage_of(**changes):
        return stage(InterpolationConfig(**vars(decoder_config(**changes))))  # a decoder's too

    stage_of().check_size(SimpleNamespace(size=8))
    with pytest.raises(ConfigError, match=r"data.size: 10, but model.config.image_size is 8"):
        stage_of().check_size(SimpleNamespace(size=10))
    with pytest.raises(ConfigError, match=r"model.config.image_size: 8 pixels, .* multiples of 3; choose 9"):
        stage_of(unshuffle=3).check_size(SimpleNamespace(size=8))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"size": 26}, "data.size: 26 pixels, but the network takes multiples of 12; choose 24"),
        ({"size": 0}, "data.size: 0 pixels, but the network takes multiples of 12; choose 12"),
        ({"crop": 10}, "data.crop: 10 pixels, but the network takes multiples of 12; choose 12"),
        ({"crop": 36}, "data.crop: 36 is larger than data.size 24; lower it"),
        ({"scale": 4}, "data.scale: 4, but model.config.scale is 3; make them equal"),
    ],
)
@pytest.mark.row(6)
def test_super_resolution_wants_its_scale_and_sizes_that_divide(data, said):
    network = UNetConfig(
        channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(), mid_attention=False, norm_groups=4
    )
    stage = SpatialSRStage(SuperResolutionConfig(network, Objective(variance="fixed_small"), scale=3, unshuffle=2))
    fitting = {"size": 24, "crop": 12, "scale": 3}
    stage.check_size(SimpleNamespace(**fitting))
    with pytest.raises(ConfigError) as failure:
        stage.check_size(SimpleNamespace(**fitting | data))
    assert str(failure.value) == said
