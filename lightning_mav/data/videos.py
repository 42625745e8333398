"""Videos without captions: the ``VideoSource`` protocol, its sources, and the data set that training reads."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_mav.data.buckets import Buckets, Shape
from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.listing import Split, list_files
from lightning_mav.data.manifest import Samples, manifest_of, read_manifest
from lightning_mav.data.moving_shapes import MovingShapeVideos
from lightning_mav.data.readers import VideoReader, open_video
from lightning_mav.data.transforms import Augmentation, prepare
from lightning_mav.data.windows import WindowReader, is_windows
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.seeding import generator

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".gif")


class VideoSource(Protocol):
    """Anything that holds numbered videos; it must pickle, for the workers of a ``DataLoader``."""

    def __len__(self) -> int:
        """Return the number of videos."""
        ...

    def open(self, index: int, /) -> VideoReader:
        """Return a reader of one video."""
        ...


@dataclass(frozen=True)
class VideoFiles:
    """Video files, opened where they are read."""

    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> VideoReader:
        """Return a reader of file ``index``."""
        return open_video(self.paths[index])


@dataclass(frozen=True)
class IndexedVideos:
    """Videos of a manifest, wherever their bytes lie."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def open(self, index: int) -> VideoReader:
        """Return a reader of video ``index``.

        Raises:
            DataError: It is not what was indexed.
        """
        sample = self.samples[index]
        stored = is_windows(sample.name)
        reader = WindowReader(sample.name, sample.media) if stored else open_video(sample.name, sample.opener())
        if len(reader.timestamps) != sample.frames:  # the bytes of a large video are not compared
            raise DataError(
                f"{sample.name}: {len(reader.timestamps)} frames, but {sample.frames} in the manifest; fetch it again"
                " or index it anew"
            )
        return reader


def pick_frames(
    timestamps: NDArray[np.float64], num_frames: int, fps: float, place: float
) -> tuple[NDArray[np.int64], float]:
    """Choose a window of ``num_frames`` frames at an even rate.

    Args:
        timestamps: (N,) sorted times in seconds, N >= num_frames.
        num_frames: frames in the window.
        fps: wished rate in frames per second; clamped to what the video allows, that is, from the rate at which the
            window spans the whole video up to the video's own mean rate.
        place: where the window starts, from 0 (first frame) to 1 (as late as it can).

    Returns:
        Indices (num_frames,) of the frames nearest to start + k / fps, and the fps used.
    """
    span = timestamps[-1] - timestamps[0]
    if num_frames == 1 or span == 0:
        return np.full(num_frames, int(place * (len(timestamps) - 1))), fps
    fps = float(min(max(fps, (num_frames - 1) / span), (len(timestamps) - 1) / span))
    # A start on a frame's own time keeps windows at the video's own rate free of repeats.
    latest = timestamps.searchsorted(timestamps[-1] - (num_frames - 1) / fps + 1e-6, side="right") - 1
    start = timestamps[min(int(place * (latest + 1)), latest)]
    return nearest(timestamps, start + np.arange(num_frames) / fps), fps


def nearest(timestamps: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the timestamp nearest to each of ``times``, half-way between two that of the earlier."""
    return ((timestamps[1:] + timestamps[:-1]) / 2).searchsorted(times)


class VideoDataset(Dataset[dict[str, Any]]):
    """Training videos at a drawn frame rate, read by (index, position) pairs.

    Args:
        source: where the videos come from.
        size: height and width of a sample in pixels.
        num_frames: frames per sample.
        fps: a fixed rate in frames per second, or the distribution to draw it from.
        seed: seed of the rate, the window's start and the augmentation.
        augment: see ``transforms.prepare``.
        buckets: whose heights, widths and numbers of frames samples have instead; None for squares.

    A sample holds ``video`` float32 (3, F, size, size) in [-1, 1], ``fps`` float32 (the rate that was really used),
    ``index`` and ``position``.
    """

    def __init__(
        self,
        source: VideoSource,
        size: int,
        num_frames: int,
        fps: FpsDistribution | float,
        seed: int,
        augment: Augmentation = "none",
        buckets: Buckets | None = None,
    ) -> None:
        if size < 1 or num_frames < 1:
            raise ConfigError(f"data.size {size} and data.frames {num_frames} must be at least 1")
        self.source, self.size, self.num_frames, self.fps, self.seed = source, size, num_frames, fps, seed
        self.augment: Augmentation = augment
        self.buckets = buckets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        shape = self.buckets.shape(index) if self.buckets else Shape(self.num_frames, self.size, self.size)
        reader = self.source.open(index)
        wished = self._wished_fps(index, position)
        draw = generator("augment", self.seed, index, position)
        place = float(torch.rand((), generator=draw))
        if len(reader.timestamps) < shape.frames:
            raise DataError(
                f"{reader.name}: {len(reader.timestamps)} frames, but a sample needs {shape.frames};"
                " remove the file or lower data.frames"
            )
        indices, fps = pick_frames(reader.timestamps, shape.frames, wished, place)
        unique, places = np.unique(indices, return_inverse=True)  # variable-rate videos can hold a frame for long
        frames = reader.frames(unique)
        if len(unique) < len(indices):
            frames = frames[places]
        video = prepare(frames, shape.height, shape.width, self.augment, draw)
        return {"video": video, "fps": torch.tensor(fps), "index": index, "position": position}

    def _wished_fps(self, index: int, position: int) -> float:
        if isinstance(self.fps, FpsDistribution):
            return self.fps.draw(position, generator("fps", self.seed, index, position))
        return self.fps


def open_videos(source: str, split: Split, size: int) -> VideoSource:
    """Return the videos that a config's ``source`` names.

    Args:
        source: "moving_shapes", or the path of a manifest, of a folder, or of a csv, jsonl or parquet list; in a folder
            that holds a manifest.jsonl, that counts.
        split: "val" is a small part that training never sees; for moving shapes, the held-out captions.
        size: height and width of rendered videos; files keep their own size.
    """
    if source == "moving_shapes":
        scenes = MovingShapeVideos("train", 100_000, 0, size)
        return scenes if split == "train" else MovingShapeVideos("test", 512, 0, size)
    if manifest := manifest_of(source):
        return IndexedVideos(read_manifest(manifest, "video", split))
    return VideoFiles([entry.path for entry in list_files(source, EXTENSIONS, split)])
