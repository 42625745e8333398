"""Rows 12 to 21 and 25: a broken or unusual video or image is named by training itself, or read right."""

import os
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_mav.data.candidates import Candidate
from lightning_mav.data.examine import examine
from lightning_mav.data.readers import open_video
from lightning_mav.data.shards import Extent
from lightning_mav.errors import DataError
from tests.conftest import counting_frames
from tests.faults.tiers import tiered


def write(path, frames, codec="libx264", pix_fmt="yuv420p", **options):
    """Encode uint8 frames (F, H, W, 3) without any loss that could hide which frame is which."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, 8)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size = pix_fmt, 4
        for frame in np.asarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
        container.mux(stream.encode())


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_half(path, **options):
    write(path, torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8), **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "cut before the index": write_half,
    "cut after the index": lambda path: write_half(path, movflags="faststart"),
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("this is no video\n" * 50),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "folder": lambda path: path.mkdir(),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "one frame": lambda path: write(path, counting_frames(1)),
    "too few frames": lambda path: write(path, counting_frames(2)),
    "sound alone": write_sound,
}


@pytest.mark.row(12, 13, 14, 15, 16, 17, 18, 19)
@pytest.mark.parametrize("kind", tiered(BROKEN, "cut after the index"))
def test_training_on_a_broken_video_ends_in_one_line_that_names_it(fit_command, refused, tmp_path, kind):
    data = tmp_path / "data"
    data.mkdir()
    BROKEN[kind](data / "broken.mp4")
    (data / "list.csv").write_text("path\nbroken.mp4\n")
    refused(fit_command(tmp_path / "run", "--data.source", data / "list.csv"), 3, f"{data}/broken.mp4")


@pytest.mark.row(16)
def test_a_file_that_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "secret.mp4")
        write(path, counting_frames(2))
        path.chmod(0)
        if not (child := os.fork()):
            os._exit(named_without_rights(path))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def named_without_rights(path):
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        open_video(str(path))
    except DataError as error:
        return 0 if "secret.mp4" in str(error) and "Permission denied" in str(error) else 2
    return 1


UNUSUAL = {
    "odd size": {"size": (31, 45), "pix_fmt": "yuv444p"},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "10 bits": {"pix_fmt": "yuv420p10le"},
    "transparent": {"codec": "png", "pix_fmt": "rgba", "suffix": ".mov"},
    "bare pictures": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "suffix": ".avi"},
}


@pytest.mark.row(21)
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_pictures_are_read_right(tmp_path, kind):
    settings = dict(UNUSUAL[kind])
    height, width = settings.pop("size", (32, 64))
    path = tmp_path / f"a{settings.pop('suffix', '.mp4')}"
    write(path, 5 * counting_frames(12, height, width), **settings)
    video = open_video(str(path))
    frames = video.frames(np.array([2, 7, 11]))
    assert frames.shape == (3, height, width, 3)
    assert (frames.float().mean((1, 2, 3)) / 20).round().tolist() == [2, 7, 11]
    assert np.allclose(np.diff(video.timestamps), 1 / 8, atol=2e-3)


@pytest.mark.row(21)
def test_frames_that_change_size_are_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", 8)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        for i in range(10):
            side = 32 if i < 5 else 48
            Image.new("RGB", (side, side), (20 * i,) * 3).save(tmp_path / "a.jpg")
            packet = av.Packet((tmp_path / "a.jpg").read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 8)
            container.mux(packet)
    with pytest.raises(DataError, match=r"a\.mkv: its frames change size"):
        examine(Candidate("a.mkv", "video", Extent(str(path), 0, path.stat().st_size)))


@pytest.mark.row(14, 15, 16, 17, 25)
@pytest.mark.parametrize("kind", ["empty", "text", "folder", "dangling link", "pipe"])
@pytest.mark.full
def test_training_on_a_broken_image_ends_in_one_line_that_names_it(fit_command, refused, tmp_path, kind):
    data = tmp_path / "data"
    data.mkdir()
    BROKEN[kind](data / "broken.jpg")
    (data / "list.csv").write_text("path\nbroken.jpg\n")
    network = {"init_args": {"config": {"network": {"temporal": None, "fps": False}}}}
    (tmp_path / "images.yaml").write_text(yaml.safe_dump({"model": network, "data": {"init_args": {"frames": 1}}}))
    words = fit_command(tmp_path / "run", "--config", tmp_path / "images.yaml", "--data.source", data / "list.csv")
    refused(words, 3, f"{data}/broken.jpg")
