"""Decoded videos train as their sources do, and nothing in a file from elsewhere does harm."""

import io

import numpy as np
import pytest
import torch

from lightning_mav.data import index, manifest, opened, transcoding
from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.manifest import read_manifest
from lightning_mav.data.readers import open_video
from lightning_mav.data.shards import Extent
from lightning_mav.data.transcoding import Decoded, Transcoder, prepare, thinned
from lightning_mav.data.videos import IndexedVideos, VideoDataset
from lightning_mav.data.windows import WindowReader, encode_frames
from lightning_mav.errors import DataError


@pytest.fixture(autouse=True)
def _quick(monkeypatch, crew_in_this_process):
    monkeypatch.setattr(index, "Crew", crew_in_this_process)
    monkeypatch.setattr(transcoding, "Crew", crew_in_this_process)


def indexed(source, out):
    index.build(str(source), out, 1, 60.0, 1)
    return IndexedVideos(read_manifest(str(out), "video"))


@pytest.fixture
def prepared(video_folder, tmp_path):
    """Return a function that gives the videos of the folder, decoded for good."""

    def run(size=16, fps=30.0):
        prepare(str(video_folder), tmp_path / "windows", Decoded(size, fps), 2, 1, 60.0)
        return indexed(tmp_path / "windows", tmp_path / "windows" / "manifest.jsonl")

    return run


def stored(data, path):
    path.write_bytes(data)
    return WindowReader("a.frames.npy", Extent(str(path), 0, len(data)))


def test_windows_train_bit_for_bit_as_their_videos_do(video_folder, prepared, tmp_path):
    sources = indexed(video_folder, tmp_path / "m.jsonl"), prepared()
    direct, windows = (VideoDataset(source, 16, 8, FpsDistribution(), 0, "crop+flip") for source in sources)
    assert len(direct) == len(windows) == 3
    for key in [(i, position) for i in range(3) for position in range(4)]:
        one, other = direct[key], windows[key]
        assert torch.equal(one["video"], other["video"]) and one["fps"] == other["fps"]


def test_the_index_knows_a_windows_facts_and_captions_stay(prepared, video_folder, tmp_path):
    samples = list(prepared().samples)
    assert [(s.width, s.height, s.frames) for s in samples] == [(32, 16, 60)] * 3
    assert [s.fps for s in samples] == pytest.approx([30, 24, 12], rel=1e-3)
    data = encode_frames(np.arange(4) / 8, np.zeros((4, 16, 16, 3), np.uint8))
    (tmp_path / "one.frames.npy").write_bytes(data)
    (tmp_path / "list.csv").write_text("path,caption\none.frames.npy,a ring\n")
    (sample,) = indexed(tmp_path / "list.csv", tmp_path / "one.jsonl").samples
    assert sample.caption == "a ring" and (sample.frames, sample.fps) == (4, 8.0)


def test_encoding_windows_anew_keeps_their_times(prepared):
    sample = next(iter(prepared(size=32).samples))
    data = Transcoder(32, 6, 18)(index.Candidate(sample.name, "video", sample.media))
    assert np.allclose(open_video("small", lambda: io.BytesIO(data)).timestamps, np.arange(60) / 30, atol=2e-5)


def test_fewer_frames_keep_their_own_times(prepared):
    readers = [source.open(i) for source in (prepared(fps=10.0),) for i in range(3)]
    assert [len(reader.timestamps) for reader in readers] == [20, 25, 50]
    for reader, every in zip(readers, (4 * 3, 4 * 2.4, 4 * 1.2), strict=True):
        levels = reader.frames(np.arange(len(reader.timestamps))).float().mean((1, 2, 3))
        assert (levels - every * torch.arange(len(levels))).abs().max() < 4


@pytest.mark.parametrize("fps", [30, 29.97, 24, 15, 1])
def test_what_is_slow_enough_keeps_every_frame(fps):
    times = 3 + np.round(np.arange(500) / fps, 3)  # milliseconds, as in mkv
    assert thinned(times, 30.0).all()
    assert thinned(times[:1], 30.0).all()


def test_a_higher_rate_is_thinned_to_a_grid():
    times = np.concatenate([np.arange(50) / 100, 0.5 + np.arange(20) / 10])
    kept = thinned(times, 10.0)
    assert kept[50:].all() and 4 <= kept[:50].sum() <= 6 and kept[0]


def test_numpy_reads_the_files_too(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    data = encode_frames(np.arange(5) / 4, frames)
    record = np.load(io.BytesIO(data), allow_pickle=False)
    assert np.array_equal(record["frames"], frames) and record["times"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    reader = stored(data, tmp_path / "a")
    assert np.array_equal(np.stack(list(reader.all_frames())), frames)
    assert np.array_equal(reader.frames(np.array([1, 4])).numpy(), frames[[1, 4]])


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


WHOLE = encode_frames(np.arange(3) / 4, np.zeros((3, 2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (npy(np.array([print], object), allow_pickle=True), "not written by data prepare"),
        (npy(np.zeros((3, 4, 4, 3), np.uint8)), "not written by data prepare"),
        (b"text" * 300, "not written by data prepare"),
        (WHOLE.replace(b"(3, 2, 2, 3)", b"(3, 0, 2, 3)"), "not written by data prepare"),
        (WHOLE.replace(b"(3, 2, 2, 3)", b"(3, 9, 2, 3)"), "damaged"),
        (WHOLE[:-1], "damaged"),
        (WHOLE + b"\0", "damaged"),
        (encode_frames(np.array([0, 2, 1]), np.zeros((3, 2, 2, 3), np.uint8)), "damaged"),
        (encode_frames(np.array([0, 1, np.nan]), np.zeros((3, 2, 2, 3), np.uint8)), "damaged"),
        (encode_frames(np.array([-np.inf, -np.inf, 1]), np.zeros((3, 2, 2, 3), np.uint8)), "damaged"),
        (encode_frames(np.array([0, 1, np.inf]), np.zeros((3, 2, 2, 3), np.uint8)), "damaged"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, data, fault):
    with pytest.raises(DataError, match=rf"a\.frames\.npy: .*{fault}"):
        stored(data, tmp_path / "a")


def test_every_cut_and_every_flipped_bit_of_the_head_is_refused_or_harmless(tmp_path):
    for size in range(0, len(WHOLE), 7):
        with pytest.raises(DataError):
            stored(WHOLE[:size], tmp_path / "a")
    for bit in range(0, 8 * 128, 3):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << bit % 8
        try:
            frames = stored(bytes(data), tmp_path / "a").frames(np.arange(3))
        except DataError:
            continue
        assert frames.shape == (3, 2, 2, 3)


@pytest.mark.parametrize("process", [None, "worker"])
def test_a_shard_cut_during_a_run_is_an_error_and_no_crash(prepared, tmp_path, monkeypatch, process):
    monkeypatch.setattr(opened, "get_worker_info", lambda: process)
    source = prepared()
    reader = source.open(1)
    with (tmp_path / "windows" / "00000.tar").open("r+b") as file:
        file.truncate(source.samples[1].media.offset + 9000)
    with pytest.raises(DataError, match="damaged"):
        reader.frames(np.array([0, 59]))
    with pytest.raises(DataError, match="damaged"):
        source.open(1).frames(np.array([59]))


def test_another_number_of_frames_than_in_the_manifest_never_passes(video_folder, tmp_path, monkeypatch):
    indexed(video_folder, tmp_path / "m.jsonl")
    rows = (tmp_path / "m.jsonl").read_text().replace('"frames": 60', '"frames": 61')
    (tmp_path / "m.jsonl").write_text(rows)
    monkeypatch.setattr(manifest, "IN_MEMORY", 100)  # as a large video, whose bytes are not compared
    with pytest.raises(DataError, match=r"a\.mp4: 60 frames, but 61 in the manifest"):
        IndexedVideos(read_manifest(str(tmp_path / "m.jsonl"), "video")).open(0)
