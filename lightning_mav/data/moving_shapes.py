"""Moving shapes as images and videos like any other: drawn when they are read, or written to files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_mav.data.scenes import Scene, Split, caption_of, draw_scene, look_of, render_stills
from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import ConfigError

SOURCE_FPS = 240  # on-demand frames; 6, 8, 10, 12, 15, 16, 20, 24 and 30 fps divide it, so sampling adds no jitter
SECONDS = 17  # 16 frames at 1 fps fit


@dataclass(frozen=True)
class MovingShapeImages:
    """Captioned stills; an ``ImageSource``. ``size`` is their height and width in pixels."""

    split: Split
    num: int
    seed: int
    size: int

    def __len__(self) -> int:
        return self.num

    def image(self, index: int) -> Tensor:
        """Return still ``index``, uint8 (size, size, 3)."""
        return self.images([index])[0]

    def images(self, indices: Sequence[int]) -> Tensor:
        """Return several stills, uint8 (N, size, size, 3), for less than they cost one by one."""
        return render_stills([draw_scene("image", self.split, self.seed, index) for index in indices], self.size)

    def caption(self, index: int) -> str:
        """Return the caption of still ``index``."""
        return caption_of(*look_of(self.split, index))

    def name(self, index: int) -> str:
        """Return what error messages call still ``index``."""
        return f"moving shapes: {self.caption(index)}"


@dataclass(frozen=True)
class MovingShapeReader:
    """One video rendered on demand; a ``VideoReader``."""

    scene: Scene
    size: int

    @property
    def name(self) -> str:
        """What error messages call this video."""
        return f"moving shapes: {self.scene.caption}"

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Times of all frames in seconds, (N,)."""
        return _TIMESTAMPS

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, size, size, 3)."""
        return self.scene.render(torch.from_numpy(_TIMESTAMPS[indices]), self.size)


_TIMESTAMPS = np.arange(SECONDS * SOURCE_FPS) / SOURCE_FPS


@dataclass(frozen=True)
class MovingShapeVideos:
    """Videos without captions; a ``VideoSource``. ``size`` is their height and width in pixels."""

    split: Split
    num: int
    seed: int
    size: int

    def __len__(self) -> int:
        return self.num

    def scene(self, index: int) -> Scene:
        """Return what video ``index`` shows."""
        return draw_scene("video", self.split, self.seed, index)

    def open(self, index: int) -> MovingShapeReader:
        """Return a reader of video ``index``."""
        return MovingShapeReader(self.scene(index), self.size)


def write_moving_shapes(
    out: Path, num_images: int = 2000, num_videos: int = 200, size: int = 64, seed: int = 0, split: Split = "train"
) -> None:
    """Write moving shapes as files that ``open_images`` and ``open_videos`` read like a user's own data.

    Args:
        out: folder for ``images/*.jpg`` with a ``.txt`` caption each, and ``videos/*.mp4`` at 30 fps.
        num_images: captioned stills.
        num_videos: videos of 17 seconds.
        size: height and width in pixels, even.
        seed: seed of the scenes.
        split: "train", or "test" for the held-out captions.

    Raises:
        ConfigError: an odd size.
    """
    if size % 2:
        raise ConfigError(f"size: {size} is odd, but mp4 needs an even one; choose {size + 1}")
    for folder in ("images", "videos"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    stills = MovingShapeImages(split, num_images, seed, size)
    for i in range(num_images):
        stem = out / "images" / f"{i:06d}"
        Image.fromarray(stills.image(i).numpy()).save(stem.with_suffix(".jpg"), quality=95)
        stem.with_suffix(".txt").write_text(stills.caption(i) + "\n", encoding="utf-8")
    times = torch.arange(SECONDS * 30) / 30
    for i in range(num_videos):
        scene = draw_scene("video", split, seed, i)
        write_mp4(out / "videos" / f"{i:06d}.mp4", scene.render(times, size), fps=30)
