"""The interpolation network's stage: masks as functions of the sample, and how it is judged."""

import pytest
import torch

from lightning_mav.errors import ConfigError
from lightning_mav.models.interpolation import InterpolationConfig, MaskDistribution, frame_mask
from lightning_mav.stages import InterpolationDataModule, InterpolationStage
from lightning_mav.stages.interpolation import psnr


def batch_of(pairs, frames=16):
    index, position = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
    return {"video": torch.zeros(len(pairs), 3, frames, 8, 8), "index": index, "position": position}


@pytest.fixture
def interpolation_config(decoder_config):
    return lambda: InterpolationConfig(**vars(decoder_config()))


def test_the_mask_of_a_sample_depends_on_index_and_position_alone(interpolation_config):
    stage = InterpolationStage(interpolation_config())
    pairs = [(i // 2, i) for i in range(30)]
    masks = stage.condition(batch_of(pairs))["frame_mask"]
    assert masks.shape == (30, 16) and masks.dtype == torch.bool
    assert torch.equal(stage.condition(batch_of(pairs[::-1]))["frame_mask"].flip(0), masks)
    assert torch.equal(stage.condition(batch_of(pairs[7:8]))["frame_mask"], masks[7:8])
    assert len(masks.unique(dim=0)) > 4
    other_seed = InterpolationStage(interpolation_config(), seed=1).condition(batch_of(pairs))["frame_mask"]
    assert not torch.equal(other_seed, masks)


def test_the_shares_of_tasks_are_settings(interpolation_config):
    animation = MaskDistribution(regular=0, first=1, last=0, both_ends=0, prefix=0, suffix=0)
    stage = InterpolationStage(interpolation_config(), masks=animation)
    masks = stage.condition(batch_of([(0, 0), (1, 1)]))["frame_mask"]
    assert torch.equal(masks, frame_mask("first", 16).expand(2, -1))


def test_judging_masks_at_skip_5(interpolation_config):
    stage = InterpolationStage(interpolation_config()).eval()
    masks = stage.condition(batch_of([(0, 0), (1, 1)]))["frame_mask"]
    assert torch.equal(masks, frame_mask("regular", 16, 5).expand(2, -1))


def test_quality_is_measured_on_missing_frames_beside_linear_blending(interpolation_config):
    stage = InterpolationStage(interpolation_config()).eval()
    batch = stage.condition(batch_of([(0, 0), (1, 1)]))
    batch |= {"video": torch.linspace(-1, 1, 16)[:, None, None].expand(2, 3, 16, 8, 8).clone()}
    stage.samples = lambda batch, noise: batch["video"] + 0.2 * (~batch["frame_mask"])[:, None, :, None, None]
    quality = stage.quality(batch)
    assert torch.isclose(quality["psnr"], torch.tensor(20.0), atol=1e-3)
    assert quality["psnr_linear"] > 60


def test_psnr_is_that_of_a_range_of_2():
    assert torch.isclose(psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.2)), torch.tensor(20.0))


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_a_number_of_frames_that_cannot_be_judged_is_refused(frames):
    with pytest.raises(ConfigError, match=f"data.frames {frames}.*for example 16"):
        InterpolationDataModule("clip", frames=frames)
