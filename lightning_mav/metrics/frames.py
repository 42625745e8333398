"""Which frames of a video enter a metric of images. Papers seldom say, so it is part of every result's protocol."""

import re

import torch
from torch import Tensor

from lightning_mav.errors import ConfigError
from lightning_mav.seeding import generator


def picked_frames(num_frames: int, policy: str, key: int | str) -> list[int]:
    """Return the numbers of the frames that a policy picks.

    Args:
        num_frames: Frames of the video, at least 1.
        policy: "all", "first", "middle", "every:K" (0, K, 2K, ...) or "random:SEED" (one frame).
        key: Names the video; with the seed it decides the random frame.

    Raises:
        ConfigError: No such policy.
    """
    name, _, number = policy.partition(":")
    if not re.fullmatch(r"all|first|middle|every:[1-9]\d*|random:\d+", policy):
        raise ConfigError(f"frames: '{policy}' is none of all, first, middle, every:K, random:SEED")
    if name == "all":
        return list(range(num_frames))
    if name == "every":
        return list(range(0, num_frames, int(number)))
    if name == "random":
        return [int(torch.randint(num_frames, (), generator=generator("frame", int(number), key)))]
    return [0 if name == "first" else num_frames // 2]


def as_stills(video: Tensor, frames: list[int]) -> Tensor:
    """Turn frames of one video (3, F, H, W) into videos of one frame each, (N, 3, 1, H, W)."""
    return video[:, frames].transpose(0, 1)[:, :, None]
