"""Real videos as a protocol shows them: a window at a frame rate, scaled and cropped."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.protocols import Window
from lightning_mav.data.readers import open_video
from lightning_mav.data.videos import pick_frames
from lightning_mav.errors import DataError
from lightning_mav.seeding import generator


def read_window(path: Path, fps: float | None, num_frames: int, window: Window, seed: int) -> Tensor:
    """Return some frames of a file, uint8 (3, F, H, W).

    Args:
        path: A video file.
        fps: Frames per second, at most the video's own; None for its own.
        num_frames: F.
        window: Which frames.
        seed: With the file's name, where a random window starts.

    Raises:
        DataError: The file is unreadable, or too short for the window.
    """
    reader = open_video(str(path))
    times = reader.timestamps
    if len(times) < num_frames:
        raise DataError(f"{path}: {len(times)} frames, but the protocol looks at {num_frames}; give longer videos")
    seconds, span = (num_frames - 1) / (fps or np.inf), times[-1] - times[0]
    if seconds > span + 0.5 / (fps or np.inf):
        raise DataError(f"{path}: lasts {span:.2g} s, but the protocol looks at {seconds:.2g} s; give longer videos")
    place = {"first": 0.0, "middle": 0.5, "random": _place(path, seed)}[window]
    indices, _ = pick_frames(times, num_frames, fps or np.inf, place)
    unique, places = np.unique(indices, return_inverse=True)
    return reader.frames(unique)[torch.from_numpy(places)].permute(3, 0, 1, 2)


def _place(path: Path, seed: int) -> float:
    return float(torch.rand((), generator=generator("window", seed, path.name)))


def fit(video: Tensor, size: tuple[int, int] | None, crop: int | None) -> Tensor:
    """Scale uint8 frames (3, F, H, W) until they cover ``size``, cut its middle, then the central square ``crop``."""
    if size is not None and video.shape[-2:] != size:
        scale = max(size[0] / video.shape[2], size[1] / video.shape[3])
        cover = [max(side, round(length * scale)) for side, length in zip(size, video.shape[-2:], strict=True)]
        frames = F.interpolate(video.transpose(0, 1).float(), cover, mode="bilinear", antialias=True)
        video = _middle(frames, size).round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
    return video if crop is None else _middle(video, (min(crop, video.shape[2]), min(crop, video.shape[3])))


def _middle(frames: Tensor, size: tuple[int, int]) -> Tensor:
    top, left = ((length - side) // 2 for length, side in zip(frames.shape[-2:], size, strict=True))
    return frames[..., top : top + size[0], left : left + size[1]]
