import pytest
import torch

from lightning_mav.data.transforms import (
    Degradation,
    downsample,
    gaussian_blur,
    prepare,
    resize_to_cover,
    to_network_range,
    to_uint8,
)
from lightning_mav.seeding import generator


def noise_frames(*shape):
    return torch.randint(0, 256, (*shape, 3), generator=generator(0), dtype=torch.uint8)


def test_uint8_and_network_range_are_inverse():
    frames = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    video = to_network_range(frames)
    assert video.shape == (3, 1, 16, 16) and video.min() == -1 and video.max() == 1
    assert torch.equal(to_uint8(video), frames)


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (16, 31), (9, 12)])
@pytest.mark.parametrize("augment", ["none", "crop", "crop+flip"])
def test_any_frame_size_becomes_the_square_asked_for(shape, augment):
    video = prepare(noise_frames(3, *shape), 16, 16, augment, generator(1))
    assert video.shape == (3, 3, 16, 16) and video.dtype == torch.float32 and video.is_contiguous()
    assert video.abs().max() <= 1


def test_resizing_keeps_the_aspect_and_averages_detail_away():
    frames = torch.zeros(1, 64, 128, 3, dtype=torch.uint8)
    frames[:, ::2] = 255
    small = resize_to_cover(frames, 8, 8)
    assert small.shape == (1, 8, 16, 3)
    assert (small.float() - 127.5).abs().max() < 12  # stripes finer than a pixel turn gray instead of aliasing


def test_the_centre_crop_is_central_and_the_random_one_moves():
    frames = torch.arange(32, dtype=torch.uint8).view(1, 1, 32, 1).expand(1, 16, 32, 3)
    centre = to_uint8(prepare(frames, 16, 16, "none", generator(0)))
    assert torch.equal(centre[0, 0, :, 0], torch.arange(8, 24, dtype=torch.uint8))
    lefts = {int(to_uint8(prepare(frames, 16, 16, "crop", generator(i)))[0, 0, 0, 0]) for i in range(200)}
    assert lefts == set(range(17))


def test_one_crop_and_one_flip_serve_all_frames_of_a_sample():
    frames = noise_frames(1, 16, 40).expand(5, -1, -1, -1)
    videos = [prepare(frames, 16, 16, "crop+flip", generator(i)) for i in range(20)]
    assert all(torch.equal(video, video[:, :1].expand_as(video)) for video in videos)
    rising = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(1, 16, 16, 3)
    flips = sum(bool(prepare(rising, 16, 16, "crop+flip", generator(i))[0, 0, 0, 0] > -0.95) for i in range(200))
    assert 70 < flips < 130


def test_blur_keeps_flat_pictures_and_has_the_width_of_a_gaussian():
    assert torch.allclose(gaussian_blur(torch.full((3, 2, 8, 8), 0.3), 0.6), torch.tensor(0.3))
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    blurred = gaussian_blur(point, 0.6)
    assert blurred.sum() == pytest.approx(1, abs=1e-6)
    assert blurred[0, 4, 5] / blurred[0, 4, 4] == pytest.approx(torch.exp(torch.tensor(-0.5 / 0.6**2)).item(), rel=1e-4)


def test_degradation_is_drawn_once_per_video():
    video = torch.randn(3, 1, 8, 8, generator=generator(2)).expand(-1, 4, -1, -1)
    degraded = Degradation(probability=0.5, sigma=(0.4, 0.6), noise=0.1)
    results = [degraded(video, generator(i)) for i in range(100)]
    assert all(torch.equal(result, result[:, :1].expand_as(result)) for result in results)
    assert 30 < sum(torch.equal(result, video) for result in results) < 70


def test_downsampling_works_on_images_and_videos_alike():
    video = torch.rand(2, 3, 5, 16, 16, generator=generator(0)) * 2 - 1
    small = downsample(video, 4)
    assert small.shape == (2, 3, 5, 4, 4)
    assert torch.allclose(small[:, :, 2], downsample(video[:, :, 2], 4))
