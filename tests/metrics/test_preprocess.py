import pytest
import torch
from torch.nn import functional as F

from lightning_mav.data.transforms import to_uint8
from lightning_mav.metrics.preprocess import Preprocess
from lightning_mav.seeding import generator


def frames(height, width, num=2):
    return torch.randint(0, 256, (1, 3, num, height, width), generator=generator(0), dtype=torch.uint8)


def test_all_levels_survive_the_way_to_minus_one_and_one_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(1, 3, 2, 16, 16)
    assert torch.equal(to_uint8(Preprocess(16)(levels)[0]), levels[0].permute(1, 2, 3, 0))


@pytest.mark.parametrize("aspect", ["squash", "crop"])
def test_square_frames_of_the_right_size_only_change_range(aspect):
    video = frames(16, 16)
    assert torch.allclose(Preprocess(16, aspect, low=0)(video), video.float() / 255)


def test_squash_takes_the_whole_frame_and_crop_its_middle():
    video = torch.zeros(1, 3, 1, 20, 40, dtype=torch.uint8)
    video[..., :10] = 255  # the left quarter
    squashed, cropped = (Preprocess(20, aspect)(video) for aspect in ("squash", "crop"))
    assert squashed[0, 0, 0, 5, :4].min() == 1 and squashed[0, 0, 0, 5, 6:].max() == -1
    assert cropped.shape == (1, 3, 1, 20, 20) and cropped.max() == -1


def test_each_frame_is_resampled_as_torch_does_it():
    video = frames(30, 50)
    expected = F.interpolate(video[0, :, 1][None].float(), (16, 16), mode="bicubic", antialias=True)
    result = Preprocess(16, filter="bicubic", antialias=True, low=0, high=255)(video)
    assert torch.allclose(result[0, :, 1], expected[0], atol=1e-3)


def test_mean_and_deviation_of_each_colour():
    grey = torch.full((1, 3, 1, 8, 8), 255, dtype=torch.uint8)
    result = Preprocess(8, low=0, mean=(0.5, 0.25, 0), std=(0.5, 0.25, 2))(grey)
    assert result[0, :, 0, 0, 0].tolist() == [1, 3, 0.5]
