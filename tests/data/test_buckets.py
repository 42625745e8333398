"""Buckets hold samples of like aspect and length, with about as many pixels each."""

import numpy as np
import pytest
import torch

from lightning_mav.data.buckets import BucketConfig, Shape, divide
from lightning_mav.data.index import build
from lightning_mav.data.manifest import Sample, read_manifest
from lightning_mav.data.shards import Extent
from lightning_mav.data.videos import IndexedVideos, VideoDataset
from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import ConfigError, DataError


def sample(width, height, frames=None):
    return Sample("x", "video", Extent("x", 0, 0), "", width, height, frames=frames)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("aspect", [0.4, 9 / 16, 1, 4 / 3, 16 / 9, 3])
def test_every_aspect_has_about_as_many_pixels(aspect, multiple):
    (shape,) = BucketConfig((aspect,), multiple=multiple).shapes(256, 16)
    assert shape.height % multiple == shape.width % multiple == 0 and shape.frames == 16
    assert shape.width * shape.height == pytest.approx(256**2, rel=0.06)
    assert shape.width / shape.height == pytest.approx(aspect, rel=0.06)


def test_a_sample_goes_to_the_longest_bucket_that_it_fills_and_there_to_the_nearest_aspect():
    shapes = BucketConfig((0.75, 1.0, 1.5), (8, 16)).shapes(64, 76)
    assert {shape.frames for shape in shapes} == {8, 16}
    samples = [sample(30, 40, 300), sample(100, 99, 16), sample(640, 360, 15), sample(10, 90, 7)]
    found = [divide(samples, shapes).shape(i) for i in range(4)]
    assert [(one.frames, one.width > one.height, one.width < one.height) for one in found] == [
        (16, False, True),
        (16, False, False),
        (8, True, False),
        (8, False, True),
    ]


def test_one_bucket_of_squares_is_what_training_reads_without_any():
    assert BucketConfig().shapes(64, 16) == (Shape(16, 64, 64),)


@pytest.mark.parametrize("wrong", [{"aspects": ()}, {"aspects": (0.0,)}, {"lengths": (0,)}, {"multiple": 0}])
def test_numbers_that_must_be_positive_are_named(wrong):
    with pytest.raises(ConfigError, match=r"data\.buckets: expected"):
        BucketConfig(**wrong)


def test_wide_and_short_videos_are_read_as_their_bucket_says(tmp_path):
    for name, (frames, height, width) in {"a": (40, 36, 64), "b": (12, 64, 36), "c": (5, 36, 36)}.items():
        levels = torch.linspace(0, 255, width).to(torch.uint8)
        write_mp4(tmp_path / f"{name}.mp4", levels[None, None, :, None].expand(frames, height, width, 3), 10)
    build(str(tmp_path), tmp_path / "manifest.jsonl", 1, 60.0, 1)
    shapes = BucketConfig((9 / 16, 1, 16 / 9), (8, 16), multiple=4).shapes(16, 16)
    source = IndexedVideos(read_manifest(str(tmp_path / "manifest.jsonl"), "video"))
    data = VideoDataset(source, 16, 16, 5.0, 0, buckets=divide(source.samples, shapes))
    videos = {source.samples[i].name: i for i in range(len(data))}
    wide = data[videos["a.mp4"], 0]["video"]
    assert wide.shape == (3, 16, 12, 20)
    row = wide[0, 0, 6]
    assert (np.diff(row) > 0).all() and row[0] < -0.85 and row[-1] > 0.85  # all of its width
    assert data[videos["b.mp4"], 0]["video"].shape == (3, 8, 20, 12)
    with pytest.raises(DataError, match=r"c\.mp4: 5 frames, but a sample needs 8"):
        data[videos["c.mp4"], 0]
