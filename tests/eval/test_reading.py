import numpy as np
import pytest
import torch

from eval.reading import fit, read_window
from lightning_mav.errors import DataError
from lightning_mav.media import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """One second of 25 frames, each a little brighter than the one before."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    video = torch.linspace(-0.8, 0.8, 25)[None, :, None, None].expand(3, 25, 32, 48)
    write_video(video, path, 25)
    return path


def brightness(frames):
    return frames.float().mean((0, 2, 3)) / 255


def test_windows_lie_where_they_are_asked_for(clip):
    everything = brightness(read_window(clip, None, 25, "first", 0))
    assert torch.allclose(brightness(read_window(clip, None, 9, "first", 0)), everything[:9])
    assert torch.allclose(brightness(read_window(clip, None, 9, "middle", 0)), everything[8:17])
    assert torch.allclose(brightness(read_window(clip, 8, 8, "first", 0)), everything[::3][:8], atol=0.05)


def test_a_random_window_is_a_function_of_seed_and_file(clip):
    starts = [brightness(read_window(clip, None, 4, "random", seed))[0].item() for seed in range(12)]
    assert starts == [brightness(read_window(clip, None, 4, "random", seed))[0].item() for seed in range(12)]
    assert len(set(starts)) > 4


def test_a_short_video_is_named(clip):
    with pytest.raises(DataError, match=r"clip.mp4: 25 frames, but the protocol looks at 26"):
        read_window(clip, None, 26, "first", 0)
    with pytest.raises(DataError, match=r"clip.mp4: lasts 0.96 s, but the protocol looks at 5 s"):
        read_window(clip, 3, 16, "middle", 0)


def test_frames_cover_the_size_and_lose_their_margins():
    ramp = torch.linspace(0, 255, 60).round().to(torch.uint8).expand(3, 2, 40, 60)
    found = fit(ramp, (20, 20), None)
    assert found.shape == (3, 2, 20, 20) and found.dtype == torch.uint8
    assert np.allclose(found[0, 0, 0].float(), torch.linspace(0, 255, 30)[5:25], atol=4)
    assert torch.equal(fit(ramp, None, None), ramp) and torch.equal(fit(ramp, (40, 60), None), ramp)
    assert torch.equal(fit(ramp, None, 30), ramp[:, :, 5:35, 15:45])
    assert fit(ramp, (80, 80), 270).shape == (3, 2, 80, 80)
