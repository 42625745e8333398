"""Written videos come back through the project's own readers, or PIL, with their frames, sizes and times."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from lightning_mav.data.readers import open_video
from lightning_mav.errors import ConfigError, MachineError
from lightning_mav.media import durations, spread, write_sheet, write_video


def grays(num_frames=12, height=32, width=48):
    """A video of flat frames that grow brighter."""
    levels = torch.linspace(-0.9, 0.9, num_frames)
    return levels[:, None, None].expand(3, -1, height, width)


def read_animation(path):
    with Image.open(path) as image:
        frames = [
            (np.asarray(frame.convert("RGB")).mean() / 127.5 - 1, frame.info["duration"])
            for frame in ImageSequence.Iterator(image)
        ]
        return *map(np.array, zip(*frames, strict=True)), image.size, image.info["loop"]


@pytest.mark.parametrize("fps", [30, 8, 1, 23.976, 29.97, 12.5, 7.3])
def test_mp4_keeps_frames_and_rate(tmp_path, fps):
    write_video(grays(), tmp_path / "a.mp4", fps)
    video = open_video(str(tmp_path / "a.mp4"))
    np.testing.assert_allclose(video.timestamps, np.arange(12) / fps, atol=2e-4)
    frames = video.frames(np.arange(12)).float() / 127.5 - 1
    assert frames.shape == (12, 32, 48, 3)
    torch.testing.assert_close(frames.mean((1, 2, 3)), grays()[0, :, 0, 0], atol=0.04, rtol=0)


def test_odd_sizes_and_single_frames_become_mp4(tmp_path):
    write_video(grays(1, 17, 31), tmp_path / "a.mp4", 8)
    frames = open_video(str(tmp_path / "a.mp4")).frames(np.arange(1))
    assert frames.shape == (1, 18, 32, 3)
    assert frames.float().std() < 2


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("fps", [30, 12.5, 4])
def test_animations_keep_frames_and_never_drift(tmp_path, suffix, fps):
    write_video(grays(), tmp_path / f"a{suffix}", fps)
    levels, shown, size, loop = read_animation(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(levels, grays()[0, :, 0, 0], atol=0.02)
    assert size == (48, 32) and loop == 0
    assert abs(np.cumsum(shown) - np.arange(1, 13) * 1000 / fps).max() <= 5


def test_small_webp_keeps_every_pixel(tmp_path):
    video = torch.rand(3, 4, 16, 16) * 2 - 1
    write_video(video, tmp_path / "a.webp", 10)
    with Image.open(tmp_path / "a.webp") as image:
        first = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    assert torch.equal(first, ((video[:, 0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0))


def test_one_frame_writes_in_every_format(tmp_path):
    for suffix in (".mp4", ".gif", ".webp"):
        write_video(grays(1), tmp_path / f"a{suffix}", 8)
        assert (tmp_path / f"a{suffix}").stat().st_size


def test_durations_add_up():
    assert sum(durations(30, 30, unit=10)) == 1000
    assert set(durations(30, 30, unit=10)) == {30, 40}


def test_a_sheet_has_a_row_per_video_and_thin_gaps(tmp_path):
    write_sheet([grays(20, 64, 48), -grays(20, 64, 48)], tmp_path / "sheet.png", num_frames=4, gap=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 64 + 2, 4 * 48 + 3 * 2, 3)
    assert (sheet[64:66] == 255).all() and (sheet[:, 48:50] == 255).all()
    assert sheet[0, 0, 0] == sheet[-1, -1, 0] < sheet[0, -1, 0] == sheet[-1, 0, 0] < 255


def test_small_frames_are_magnified_in_a_sheet(tmp_path):
    write_sheet([torch.rand(3, 2, 16, 30) * 2 - 1], tmp_path / "sheet.png", gap=0)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (32, 2 * 60, 3)
    assert (sheet[::2, ::2] == sheet[1::2, 1::2]).all()


def test_spread_takes_the_first_and_the_last():
    assert spread(76, 4) == [0, 25, 50, 75]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(5, 1) == [0]


@pytest.mark.parametrize(
    ("name", "fps", "said"),
    [("a.avi", 8, r"'\.avi'.*\.mp4"), ("a", 8, r"\.mp4"), ("a.gif", 60, "GIF plays 50")],
)
def test_wrong_names_say_what_works(tmp_path, name, fps, said):
    with pytest.raises(ConfigError, match=said):
        write_video(grays(), tmp_path / name, fps)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"file/a\.mp4"):
        write_video(grays(), tmp_path / "file" / "a.mp4", 8)
