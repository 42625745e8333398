import io
import os
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from itertools import islice

import av
import numpy as np
import pytest
import torch

from lightning_mav.data import decord_reader, pyav_reader, video_streams
from lightning_mav.data.decord_reader import DecordReader
from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.readers import open_video
from lightning_mav.data.torchcodec_reader import TorchCodecReader, is_installed
from lightning_mav.data.video_streams import Stream, largest_stream, require_whole
from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import DataError

needs_torchcodec = pytest.mark.skipif(not is_installed(), reason="torchcodec or FFmpeg's libraries are not installed")
READERS = (DecordReader, PyAVReader, pytest.param(TorchCodecReader, marks=needs_torchcodec))


def opened(reader, path):
    return reader(str(path), largest_stream(str(path)))


def numbers(frames):
    """Which frames of ``counting_frames`` these are."""
    return (frames.float().mean((1, 2, 3)) / 4).round().int().tolist()


def decoded(path, number, num=None):
    """The first ``num`` frames of a stream, decoded in one go without seeking."""
    with av.open(str(path)) as container:
        stream = container.streams.video[number]
        return np.stack(
            [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in islice(container.decode(stream), num)]
        )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("name", "fps"), [("a.mp4", 30), ("b.mkv", 24), ("c.mp4", 12)])
def test_readers_give_the_frames_and_times_asked_for(video_folder, reader, name, fps):
    video = opened(reader, video_folder / name)
    assert np.allclose(video.timestamps - video.timestamps[0], np.arange(60) / fps, atol=1.1e-3)
    for wanted in ([0, 1, 2], [7, 30, 59], [3], [59], [10, 20]):
        frames = video.frames(np.array(wanted))
        assert frames.dtype == torch.uint8 and frames.shape == (len(wanted), 32, 64, 3)
        assert numbers(frames) == wanted


def test_seeking_in_long_files_gives_the_same_frames(video_folder, monkeypatch):
    for module in (decord_reader, pyav_reader):
        monkeypatch.setattr(module, "SEEK_BEYOND", 5)
    with pytest.raises(DataError, match="too long"):
        opened(DecordReader, video_folder / "a.mp4")
    assert numbers(open_video(str(video_folder / "a.mp4")).frames(np.array([20, 41]))) == [20, 41]


@pytest.mark.parametrize(
    "name",
    ["arm_wrestling.mp4", "nasa.mp4", "pancake.mkv", "realshort.mp4", "rotated_90.mov", "test.avi", "unordered.mov"],
)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_right_frames_of_real_clips(shared_data, name, reader):
    path = str(shared_data / "clips" / name)
    stream = largest_stream(path)
    if reader is TorchCodecReader and name == "test.avi":
        with pytest.raises(DataError, match="or avi"):
            reader(path, stream)
        return
    whole = decoded(path, stream.number)
    wanted = np.unique(np.linspace(len(whole) // 3, len(whole) - 1, 5).astype(int))
    video = reader(path, stream)
    assert len(video.timestamps) == len(whole) and (np.diff(video.timestamps) > 0).all()
    assert np.abs(video.frames(wanted).numpy().astype(int) - whole[wanted]).mean() < 1.5


@pytest.mark.parametrize(("name", "wanted"), [("cockatoo.mp4", [80, 82]), ("h265.mp4", [3, 5, 9])])
@pytest.mark.parametrize("reader", READERS)
def test_files_that_decode_only_from_their_start_are_right(shared_data, name, wanted, reader, monkeypatch):
    path, wanted = shared_data / "clips" / name, np.array(wanted)
    whole = decoded(path, 0, wanted[-1] + 1)
    assert np.array_equal(opened(reader, path).frames(wanted), whole[wanted])
    if reader is PyAVReader:
        monkeypatch.setattr(pyav_reader, "SEEK_BEYOND", 2)
        assert np.array_equal(opened(PyAVReader, path).frames(wanted), whole[wanted])


def test_very_narrow_videos_are_read(tmp_path):
    write_mp4(tmp_path / "narrow.mp4", torch.full((4, 16, 16, 3), 80, dtype=torch.uint8), 8)
    frames = open_video(str(tmp_path / "narrow.mp4")).frames(np.arange(4))
    assert frames.shape == (4, 16, 16, 3) and (frames.float() - 80).abs().max() < 5


def test_the_larger_of_two_streams_is_read(shared_data):
    video = open_video(str(shared_data / "clips/nasa.mp4"))
    assert len(video.timestamps) == 390 and video.frames(np.array([5])).shape == (1, 270, 480, 3)


@pytest.mark.row(21)
@pytest.mark.parametrize("reader", READERS)
def test_rotated_files_come_upright(shared_data, reader):
    assert opened(reader, shared_data / "clips/rotated_90.mov").frames(np.array([0])).shape == (1, 568, 320, 3)


@pytest.mark.parametrize("reader", READERS[:2])
def test_avi_times_come_from_its_rate(shared_data, reader):
    assert np.allclose(np.diff(opened(reader, shared_data / "clips/test.avi").timestamps), 1 / 25)


def test_what_decord_cannot_open_pyav_reads(shared_data):
    video = open_video(str(shared_data / "clips/av1.mkv"))
    assert isinstance(video, PyAVReader) and len(video.timestamps) == 125
    assert video.frames(np.array([3, 70])).shape == (2, 360, 640, 3)


@pytest.mark.parametrize("reader", READERS)
def test_damaged_pictures_are_an_error_that_names_the_file(shared_data, reader):
    video = opened(reader, shared_data / "clips/corrupted.mp4")
    with pytest.raises(DataError, match=r"corrupted\.mp4: damaged"):
        video.frames(np.arange(50))


def write_variable_rate(path, times):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 30)
        stream.height, stream.width, stream.time_base = 32, 32, Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.row(21)
def test_variable_rates_keep_their_timestamps(tmp_path, reader):
    times = np.concatenate([np.arange(20) / 20, 1 + np.arange(20) / 5])
    write_variable_rate(tmp_path / "variable.mkv", times)
    video = opened(reader, tmp_path / "variable.mkv")
    assert np.allclose(video.timestamps, times, atol=2e-3)
    assert numbers(video.frames(np.array([5, 25]))) == [5, 25]


@pytest.mark.row(12, 14, 15, 16, 17)
def test_files_that_are_no_video_are_named_at_once(video_folder, tmp_path):
    whole = (video_folder / "a.mp4").read_bytes()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    contents = {
        "zero.mp4": b"",
        "text.mp4": b"this is no video\n" * 50,
        "cut.mp4": whole[: len(whole) // 2],
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "folder.mp4", "pipe.mp4", "missing.mp4"):
        with pytest.raises(DataError, match=name):
            open_video(str(tmp_path / name))


@pytest.mark.row(19)
def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", 16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound\.mp4: no video stream"):
        open_video(str(tmp_path / "sound.mp4"))


@pytest.mark.row(13)
@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx")])
def test_a_file_cut_after_its_header_is_refused(tmp_path, kind, codec):
    frames = torch.randint(0, 256, (96, 32, 32, 3), dtype=torch.uint8)
    with av.open(str(tmp_path / f"whole.{kind}"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, 30)
        stream.height, stream.width, stream.gop_size = 32, 32, 12
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    assert len(open_video(str(tmp_path / f"whole.{kind}")).timestamps) == 96
    half = tmp_path / f"half.{kind}"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=half.name):
        open_video(str(half)).frames(np.arange(0, 96, 6) if kind == "mp4" else np.arange(3))


@pytest.mark.parametrize(
    ("times", "declared", "whole"),
    [
        (np.arange(40) / 30, 40, True),
        (np.arange(35) / 30, 40, False),
        (np.arange(28) / 30, 1.0, True),  # some are always lost
        (np.arange(26) / 30, 1.0, False),
        (np.delete(np.arange(99), range(0, 99, 9)) / 30, 3.3, True),  # of a slow camera
        (5 + np.arange(30) / 30, 6.0, True),  # its clock starts late
        (5 + np.arange(25) / 30, 6.0, False),
        (np.delete(np.arange(90), range(30, 70)) / 30, 3.0, True),  # a picture that is held, as in recorded screens
        (np.arange(26) / 30, 0.0, True),
        (np.concatenate([np.arange(10) / 30, 1 + np.arange(10) / 5]), 9.0, True),  # its last may stand still
        (np.zeros(1), 9.0, True),
        (np.zeros(5), 9.0, True),
        (np.zeros(0), 0.0, False),
    ],
)
def test_a_video_is_whole_if_it_has_its_frames_or_lasts_to_its_end(times, declared, whole):
    frames, end = (declared, 0.0) if isinstance(declared, int) else (0, declared)
    with nullcontext() if whole else pytest.raises(DataError, match=rf"x: holds {len(times)} of its \d+ frames"):
        require_whole("x", times, Stream(0, 0, 8, 8, frames, end))


def test_written_videos_read_back_close(tmp_path):
    frames = torch.zeros(5, 64, 64, 3, dtype=torch.uint8)
    frames[:, 16:48, 16:48, 0] = 200
    write_mp4(tmp_path / "a.mp4", frames, 29.97)
    video = open_video(str(tmp_path / "a.mp4"))
    assert (video.frames(np.arange(5)).float() - frames).abs().mean() < 3
    assert np.diff(video.timestamps).mean() == pytest.approx(1 / 29.97, rel=1e-3)


@pytest.mark.row(25)
def test_frames_too_large_for_memory_are_refused(video_folder, monkeypatch):
    monkeypatch.setattr(video_streams, "MAX_PIXELS", 32 * 64 - 1)
    with pytest.raises(DataError, match=r"a\.mp4: frames of 64 x 32 pixels are too large"):
        open_video(str(video_folder / "a.mp4"))


@pytest.mark.parametrize("reader", READERS)
def test_bytes_of_another_file_are_read_like_a_file(video_folder, reader):
    path = video_folder / "a.mp4"
    opener = partial(io.BytesIO, path.read_bytes())
    video = reader("inside", largest_stream("inside", opener), opener)
    assert np.array_equal(video.timestamps, opened(reader, path).timestamps) and video.name == "inside"
    for wanted in ([40, 59], [3, 4]):
        assert numbers(video.frames(np.array(wanted))) == wanted
    assert [numbers(torch.from_numpy(f.copy())[None])[0] for f in video.all_frames()] == list(range(60))


def test_what_is_too_large_for_decord_is_read_in_place(video_folder, monkeypatch):
    monkeypatch.setattr(decord_reader, "IN_MEMORY", 100)
    opener = partial(open, video_folder / "a.mp4", "rb")
    video = open_video("inside", opener)
    assert isinstance(video, PyAVReader) and numbers(video.frames(np.array([7]))) == [7]


def test_a_title_that_is_no_text_and_a_codec_nobody_knows(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["title"] = "a title of its own"
        stream = container.add_stream("libx264", 8)
        stream.height, stream.width = 32, 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "title.mp4").write_bytes(whole.replace(b"a title of its own", b"a title \xff\xfe\xe9 its own"))
    assert len(open_video(str(tmp_path / "title.mp4")).timestamps) == 1
    (tmp_path / "codec.mp4").write_bytes(whole.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(DataError, match=r"codec\.mp4: no video stream"):
        open_video(str(tmp_path / "codec.mp4"))
