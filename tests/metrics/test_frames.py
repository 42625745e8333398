import pytest
import torch

from lightning_mav.errors import ConfigError
from lightning_mav.metrics.frames import as_stills, picked_frames


def test_each_policy_picks_its_frames():
    assert picked_frames(4, "all", 0) == [0, 1, 2, 3]
    assert picked_frames(7, "every:3", 0) == [0, 3, 6]
    assert (picked_frames(5, "first", 0), picked_frames(5, "middle", 0), picked_frames(1, "middle", 0)) == (
        [0],
        [2],
        [0],
    )


def test_a_random_frame_is_a_function_of_seed_and_video():
    drawn = [picked_frames(16, "random:1", key)[0] for key in range(200)]
    assert drawn == [picked_frames(16, "random:1", key)[0] for key in range(200)]
    assert drawn != [picked_frames(16, "random:2", key)[0] for key in range(200)]
    assert set(drawn) == set(range(16))


@pytest.mark.parametrize("policy", ["last", "every:0", "every", "random", "all:2"])
def test_another_policy_is_refused(policy):
    with pytest.raises(ConfigError, match="is none of all, first, middle"):
        picked_frames(4, policy, 0)


def test_stills_are_videos_of_one_frame():
    video = torch.rand(3, 5, 2, 2)
    stills = as_stills(video, [4, 1])
    assert stills.shape == (2, 3, 1, 2, 2) and torch.equal(stills[0, :, 0], video[:, 4])
