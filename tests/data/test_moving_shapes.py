import numpy as np
import pytest
import torch

from lightning_mav.data.images import open_images
from lightning_mav.data.moving_shapes import MovingShapeImages, MovingShapeVideos, write_moving_shapes
from lightning_mav.data.scenes import draw_scene
from lightning_mav.data.transforms import to_uint8
from lightning_mav.data.videos import VideoDataset, open_videos


@pytest.mark.parametrize("fps", [1, 6, 16, 30])
def test_sixteen_frames_at_1_to_30_fps_lie_exactly_on_the_path(fps):
    videos = MovingShapeVideos("train", 10, 0, 16)
    sample = VideoDataset(videos, 16, 16, float(fps), seed=0)[3, 7]
    assert sample["fps"] == fps
    starts = torch.arange(0, int(240 * (17 - 15 / fps)), dtype=torch.float64) / 240
    steps = torch.arange(16) / fps
    frames = to_uint8(sample["video"]).int()
    scene = videos.scene(3)
    assert any((scene.render(start + steps, 16) - frames).abs().max() <= 1 for start in starts)


@pytest.mark.parametrize("size", [16, 33])
def test_a_still_is_the_same_alone_among_others_and_as_a_frame(size):
    stills = MovingShapeImages("train", 40, 0, size)
    together = stills.images(range(40))
    assert torch.equal(together, torch.stack([stills.image(i) for i in range(40)]))
    frames = torch.cat([draw_scene("image", "train", 0, i).render(torch.zeros(1), size) for i in range(40)])
    assert (together.int() - frames.int()).abs().max() <= 1
    assert [stills.caption(i) for i in range(40)] == [draw_scene("image", "train", 0, i).caption for i in range(40)]


def test_written_shapes_go_through_the_readers_of_user_files(tmp_path):
    write_moving_shapes(tmp_path, num_images=2, num_videos=1, size=32, seed=3)
    images = open_images(str(tmp_path / "images"), "train", 32)
    rendered = MovingShapeImages("train", 2, 3, 32)
    index = [rendered.caption(i) for i in range(2)].index(images.caption(0))
    assert (images.image(0).float() - rendered.image(index)).abs().mean() < 6
    reader = open_videos(str(tmp_path / "videos"), "train", 32).open(0)
    assert len(reader.timestamps) == 510
    times = torch.tensor([0.0, 0.5, 1.0])
    expected = draw_scene("video", "train", 3, 0).render(times, 32).float()
    assert (reader.frames(np.array([0, 15, 30])).float() - expected).abs().mean() < 6
