import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.order import EndlessBatches
from lightning_mav.data.videos import VideoDataset, VideoFiles, open_videos, pick_frames
from lightning_mav.errors import ConfigError, DataError

THIRTY = np.arange(300) / 30


@pytest.mark.parametrize("place", [0, 0.37, 0.99])
@pytest.mark.parametrize("fps", [1.7, 6, 10, 29, 30])
def test_windows_keep_the_rate_and_stay_inside(fps, place):
    indices, used = pick_frames(THIRTY, 16, fps, place)
    assert used == fps
    assert np.abs(THIRTY[indices] - THIRTY[indices[0]] - np.arange(16) / fps).max() <= 1 / 60 + 1e-9
    assert indices.min() >= 0 and indices.max() < 300 and (np.diff(indices) > 0).all()


def test_rates_are_clamped_to_what_the_video_allows():
    span = THIRTY[-1]
    assert pick_frames(THIRTY, 16, 60, 0.5)[1] == pytest.approx(30)
    indices, used = pick_frames(THIRTY, 16, 0.5, 0.9)
    assert used == pytest.approx(15 / span) and indices[0] == 0 and indices[-1] == 299
    indices, used = pick_frames(THIRTY[:16], 16, 7, 0.5)
    assert used == pytest.approx(30) and indices.tolist() == list(range(16))


def test_every_start_is_possible():
    starts = {int(pick_frames(THIRTY[:20], 16, 30, place)[0][0]) for place in np.linspace(0, 0.999, 50)}
    assert starts == {0, 1, 2, 3, 4}


def test_times_and_not_numbers_choose_the_frames_of_a_variable_rate():
    times = np.concatenate([np.arange(20) / 20, 1 + np.arange(20) / 5])
    indices, fps = pick_frames(times, 16, 4, 0)
    assert fps == 4
    assert np.abs(times[indices] - np.arange(16) / 4).max() < 0.101


def test_samples_hold_the_frames_at_the_rate_they_claim(video_folder):
    source = VideoFiles([str(video_folder / "a.mp4")])
    sample = VideoDataset(source, 16, 8, FpsDistribution(), seed=0)[0, 3]
    assert sample["video"].shape == (3, 8, 16, 16) and sample["fps"].dtype == torch.float32
    levels = (sample["video"].mean((0, 2, 3)) + 1) * 127.5 / 4
    steps = 30 / sample["fps"] * torch.arange(8)
    assert (levels - levels[0] - steps).abs().max() < 1.1


def test_samples_depend_on_seed_index_and_position_alone(video_folder):
    def sample(seed, position):
        source = open_videos(str(video_folder), "train", 16)
        return VideoDataset(source, 16, 8, FpsDistribution(), seed, "crop+flip")[1, position]

    first, again = sample(0, 4), sample(0, 4)
    assert torch.equal(first["video"], again["video"]) and first["fps"] == again["fps"]
    assert len({sample(seed, position)["fps"].item() for seed in (0, 1) for position in range(3)}) > 3


def test_the_position_moves_the_rate_along_the_curriculum(video_folder):
    source = VideoFiles([str(video_folder / "a.mp4")])
    data = VideoDataset(source, 16, 4, FpsDistribution(curriculum_samples=1000), seed=0)
    early, late = ([data[0, start + i]["fps"].item() for i in range(10)] for start in (0, 1000))
    assert np.mean(early) > np.mean(late) + 5


@pytest.mark.parametrize("source", ["files", "moving_shapes"])
def test_workers_read_what_the_main_process_reads(video_folder, source):
    name = str(video_folder) if source == "files" else source
    data = VideoDataset(open_videos(name, "train", 16), 16, 8, FpsDistribution(), seed=0)
    order = EndlessBatches(len(data), 3, seed=0)
    batch = next(iter(DataLoader(data, batch_sampler=order, num_workers=2)))
    direct = [data[key] for key in next(iter(order))]
    assert torch.equal(batch["video"], torch.stack([sample["video"] for sample in direct]))
    assert torch.equal(batch["fps"], torch.stack([sample["fps"] for sample in direct]))


def test_sources_pickle(video_folder):
    source = open_videos(str(video_folder), "train", 16)
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.row(18)
def test_too_short_videos_are_named_with_both_numbers(video_folder, shared_data):
    with pytest.raises(DataError, match=r"a\.mp4: 60 frames, but a sample needs 76"):
        VideoDataset(VideoFiles([str(video_folder / "a.mp4")]), 16, 76, 10.0, seed=0)[0, 0]
    with pytest.raises(DataError, match=r"h265\.mp4: 10 frames"):
        VideoDataset(VideoFiles([str(shared_data / "clips/h265.mp4")]), 16, 16, 10.0, seed=0)[0, 0]


@pytest.mark.parametrize(("size", "num_frames"), [(0, 4), (8, 0)])
def test_samples_without_pixels_or_frames_are_refused(video_folder, size, num_frames):
    with pytest.raises(ConfigError, match=f"data.size {size} and data.frames {num_frames} must be at least 1"):
        VideoDataset(open_videos(str(video_folder), "train", 8), size, num_frames, 8.0, seed=0)


def test_real_clips_become_samples(shared_data):
    clips = [str(shared_data / "clips" / name) for name in ("stretching.mp4", "test.avi", "pancake.mkv", "av1.mkv")]
    data = VideoDataset(VideoFiles(clips), 32, 16, FpsDistribution(), seed=0, augment="crop")
    for index in range(len(clips)):
        sample = data[index, 0]
        assert sample["video"].shape == (3, 16, 32, 32) and sample["video"].std() > 0.05
        assert 1 <= sample["fps"] <= 30
