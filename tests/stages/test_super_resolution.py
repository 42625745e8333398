"""The super-resolution stages: how the low-resolution input is made and what they are judged against."""

from types import SimpleNamespace

import pytest
import torch

from lightning_mav.data.transforms import Degradation, downsample
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.stages import SpacetimeSRDataModule, SpatialSRDataModule, SpatialSRStage
from lightning_mav.stages.super_resolution import random_square

ROUGH = Degradation(probability=0.7, sigma=(0.3, 1.0), noise=0.2)
PAIRS = [(i // 2, i) for i in range(8)]


def module(training=True, **options):
    data = SpacetimeSRDataModule(**{"size": 16, "degradation": ROUGH, **options})
    data.trainer = SimpleNamespace(training=training)
    return data


def batch_of(pairs, frames=4):
    """Still videos, all of the same picture."""
    index, position = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
    picture = torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"video": picture.expand(len(pairs), -1, frames, -1, -1), "index": index, "position": position}


def low_res(pairs, **options):
    return module(**options).on_after_batch_transfer(batch_of(pairs), 0)["low_res"]


def test_degradation_is_drawn_once_per_video():
    small = low_res(PAIRS)
    assert small.shape == (8, 3, 4, 4, 4)
    assert torch.equal(small, small[:, :, :1].expand_as(small))
    assert len(small.flatten(1).unique(dim=0)) > 4


def test_degradation_and_crop_depend_on_index_and_position_alone():
    small = low_res(PAIRS, crop=8)
    assert torch.equal(low_res(PAIRS[::-1], crop=8).flip(0), small)
    assert torch.equal(low_res(PAIRS[3:4], crop=8), small[3:4])
    assert not torch.equal(low_res(PAIRS, crop=8, seed=1), small)


def test_training_sees_the_same_random_square_in_both_sizes():
    plain = Degradation(probability=0)
    batch = module(crop=8, degradation=plain).on_after_batch_transfer(batch_of(PAIRS), 0)
    assert batch["video"].shape == (8, 3, 4, 8, 8)
    assert torch.equal(batch["low_res"], downsample(batch["video"], 2))
    assert len(batch["video"].flatten(1).unique(dim=0)) > 4


def test_judging_sees_whole_frames_that_are_only_smaller():
    batch = module(training=False, crop=8).on_after_batch_transfer(batch_of(PAIRS), 0)
    assert batch["video"].shape == (8, 3, 4, 16, 16)
    assert torch.equal(batch["low_res"], downsample(batch["video"], 4))


def test_images_are_videos_of_one_frame():
    batch = batch_of(PAIRS, frames=1)
    images = {"image": batch.pop("video")[:, :, 0], **batch}
    data = SpatialSRDataModule(size=16, scale=4)
    data.trainer = SimpleNamespace(training=True)
    assert data.on_after_batch_transfer(images, 0)["low_res"].shape == (8, 3, 1, 4, 4)


@pytest.mark.parametrize(("frames", "key"), [(1, "image"), (3, "video")])
def test_frames_decide_whether_images_or_videos_are_read(frames, key):
    sample = module(frames=frames).dataset("train")[0, 0]
    assert sample[key].shape == ((3, 16, 16) if frames == 1 else (3, 3, 16, 16))


def test_a_random_square_is_anywhere_and_the_same_in_all_frames():
    video = torch.arange(64.0).view(1, 1, 8, 8).expand(3, 5, 8, 8)
    draw = torch.Generator().manual_seed(0)
    squares = [random_square(video, 6, draw) for _ in range(60)]
    assert all(square.shape == (3, 5, 6, 6) and (square == square[:, :1]).all() for square in squares)
    assert {int(square[0, 0, 0, 0]) for square in squares} == {y * 8 + x for y in range(3) for x in range(3)}


def test_quality_stands_beside_bicubic_enlargement():
    network = UNetConfig(channels=8, channel_mult=(1,), num_res_blocks=1, attention_downsamples=(), norm_groups=4,
                         mid_attention=False, image_embedding_dim=None, context_dim=None)  # fmt: skip
    stage = SpatialSRStage(SuperResolutionConfig(network, scale=4)).eval()
    batch = module(training=False).on_after_batch_transfer(batch_of(PAIRS[:2]), 0)
    stage.samples = lambda batch, noise: batch["video"]
    quality = stage.quality(batch)
    assert quality["psnr"] > 90 and quality["psnr_bicubic"] < 30
    assert stage._dropped([(0, 0, 0)]).tolist() == [False]
