import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.data.images import read_image
from lightning_mav.data.readers import open_video
from lightning_mav.predictions import write_sample


@pytest.mark.parametrize("fps", [6.0, 12.5])
def test_a_video_keeps_frames_and_rate(tmp_path, fps):
    path = write_sample(torch.zeros(3, 8, 64, 64), tmp_path / "000003", fps)
    times = open_video(path).timestamps
    assert path.name == "000003.mp4" and len(times) == 8
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(fps, rel=0.01)


@pytest.mark.parametrize("size", [16, 64])
def test_an_image_keeps_its_pixels(tmp_path, size):
    image = torch.rand(3, 1, size, size) * 2 - 1
    path = write_sample(image, tmp_path / "a", 1.0)
    assert path.suffix == ".png"
    assert (read_image(path).permute(2, 0, 1) / 127.5 - 1 - image[:, 0]).abs().max() <= 1 / 127.5


def test_an_embedding_is_exact(tmp_path):
    embedding = torch.randn(12)
    assert torch.equal(load_file(write_sample(embedding, tmp_path / "a", 1.0))["embedding"], embedding)
