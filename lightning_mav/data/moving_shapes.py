"""Moving shapes: the embedded data, rendered on demand from (seed, split, kind, index).

Captioned stills show a coloured shape at any place; silent videos show each kind of shape moving in its own way. No
caption mentions motion and no video has a caption, so only a method that learns appearance from text and motion from
unlabelled video can give the right video for a text. Sixteen captions are held out of everything.

The frame is [-1, 1] x [-1, 1], x to the right, y down; sizes and amplitudes are in these units.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import ConfigError
from lightning_mav.seeding import generator

Split = Literal["train", "test"]

SHAPES = ("ring", "square", "triangle", "cross")
FOREGROUNDS = {
    "purple": (150, 30, 200),
    "red": (225, 30, 30),
    "green": (20, 160, 50),
    "blue": (30, 60, 230),
    "yellow": (250, 215, 20),
    "cyan": (30, 210, 225),
}
BACKGROUNDS = {"white": (250, 250, 250), "gray": (125, 125, 125), "black": (10, 10, 10), "pink": (255, 170, 190)}

SIZES = (0.34, 0.44)  # scale of the shape; at 16 pixels, 5 to 7 pixels across
AMPLITUDES = (0.32, 0.46)
FREQUENCIES = (0.85, 1.15)  # hertz
EXTENTS = {"ring": 1.0, "square": 0.8, "triangle": 1.2, "cross": 1.0}  # how far a shape reaches, in units of its size
SOURCE_FPS = 240  # on-demand frames; 6, 8, 10, 12, 15, 16, 20, 24 and 30 fps divide it, so sampling adds no jitter
SECONDS = 17  # 16 frames at 1 fps fit


def caption_of(shape: str, foreground: str, background: str) -> str:
    """Return the caption, for example "a purple cross on a white background"."""
    return f"a {foreground} {shape} on a {background} background"


Look = tuple[str, str, str]
LOOKS: list[Look] = list(product(SHAPES, FOREGROUNDS, BACKGROUNDS))
# One colour for each pair of shape and background, so that any two attributes are still seen together, with all values
# of the third but one at most: each shape and background is held out 4 times, each colour 2 or 3.
_FIRST_COLOUR = {"ring": 2, "square": 3, "triangle": 5, "cross": 0}
HELD_OUT_LOOKS: list[Look] = [
    (shape, list(FOREGROUNDS)[(_FIRST_COLOUR[shape] + i) % len(FOREGROUNDS)], background)
    for shape in SHAPES
    for i, background in enumerate(BACKGROUNDS)
]
TRAIN_LOOKS = [look for look in LOOKS if look not in HELD_OUT_LOOKS]
CAPTIONS = [caption_of(*look) for look in LOOKS]
HELD_OUT = [caption_of(*look) for look in HELD_OUT_LOOKS]


Plane = Any  # float32 of numpy, as a small picture costs torch more in calls than in work; its types would be longer


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(np.sqrt(x * x + y * y) - 0.75) - 0.25


def _square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(y, 0.75**0.5 * np.abs(x) - 0.5 * y) - 0.6


def _cross(x: Plane, y: Plane) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.35), np.maximum(x - 0.35, y - 1))


# Signed distances of the shapes at size 1, negative inside; the origin is each shape's centroid.
_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}

_DIRECTIONS = {"ring": (0.0, 1.0), "square": (1.0, 0.0), "triangle": (1.0, 1.0), "cross": (1.0, 1.0)}


def coverage(shape: str, size: float | Tensor, centres: Tensor, resolution: int) -> Tensor:
    """Return the share of each pixel that a shape covers.

    Args:
        shape: one of ``SHAPES``.
        size: its scale in frame units, one for all or (F,).
        centres: (F, 2) centroids (x, y) in frame units.
        resolution: height and width in pixels.

    Returns:
        float32 (F, resolution, resolution) in [0, 1], antialiased over one pixel.
    """
    pixel = 2 / resolution
    grid = (np.arange(resolution, dtype=np.float32) + 0.5) * pixel - 1
    sizes = np.asarray(size, np.float32).reshape(-1, 1, 1)
    places = (grid - centres.float().numpy()[:, :, None]) / sizes
    distance = _DISTANCES[shape](places[:, 0, None, :], places[:, 1, :, None])
    return torch.from_numpy(np.clip(0.5 - distance * (sizes / np.float32(pixel)), 0, 1))


@dataclass(frozen=True)
class Scene:
    """One shape with its look and its motion; a still has amplitude 0.

    Attributes:
        shape: one of ``SHAPES``; it decides the kind of motion.
        foreground: key of ``FOREGROUNDS``.
        background: key of ``BACKGROUNDS``.
        size: scale of the shape in frame units.
        centre: (x, y) about which the shape moves.
        amplitude: of the sinusoid, per moving coordinate, in frame units.
        frequency: in hertz.
        phase: in radians.
    """

    shape: str
    foreground: str
    background: str
    size: float
    centre: tuple[float, float]
    amplitude: float = 0.0
    frequency: float = 1.0
    phase: float = 0.0

    @property
    def caption(self) -> str:
        """The caption that a still of this scene has."""
        return caption_of(self.shape, self.foreground, self.background)

    def path(self, times: Tensor) -> Tensor:
        """Return the centroids (F, 2) at ``times`` (F,) in seconds."""
        if not self.amplitude:
            return torch.tensor(self.centre).expand(len(times), 2)
        angle = 2 * math.pi * self.frequency * times + self.phase
        # An orbit is a diagonal whose second coordinate runs a quarter period ahead.
        second = angle + math.pi / 2 if self.shape == "cross" else angle
        waves = self.amplitude * torch.stack([angle, second], 1).sin()
        return torch.tensor(self.centre) + waves * torch.tensor(_DIRECTIONS[self.shape])

    def render(self, times: Tensor, resolution: int) -> Tensor:
        """Return uint8 frames (F, resolution, resolution, 3) at ``times`` (F,) in seconds."""
        return paint(coverage(self.shape, self.size, self.path(times), resolution).numpy(), [self])


def render_stills(scenes: Sequence[Scene], resolution: int) -> Tensor:
    """Return what each still shows, uint8 (N, resolution, resolution, 3), drawing all of a shape in one go."""
    cover = np.empty((len(scenes), resolution, resolution), np.float32)
    for shape in {scene.shape for scene in scenes}:
        which = [i for i, scene in enumerate(scenes) if scene.shape == shape]
        sizes = torch.tensor([scenes[i].size for i in which])
        centres = torch.tensor([scenes[i].centre for i in which])
        cover[which] = coverage(shape, sizes, centres, resolution)
    return paint(cover, scenes)


def paint(cover: Plane, scenes: Sequence[Scene]) -> Tensor:
    """Mix the colours of one scene, or of a scene for each frame, by coverage (F, H, W): uint8 (F, H, W, 3)."""
    back = _planes([BACKGROUNDS[scene.background] for scene in scenes])
    front = _planes([FOREGROUNDS[scene.foreground] for scene in scenes])
    planes = (cover * (front - back) + (back + 0.5)).astype(np.uint8)
    return torch.from_numpy(planes.transpose(1, 2, 3, 0))


def _planes(colours: list[tuple[int, int, int]]) -> Plane:
    """Return colours as (3, F, 1, 1)."""
    return np.array(colours, np.float32).T[:, :, None, None]


def look_of(split: Split, index: int) -> Look:
    """Return shape and colours of scene ``index`` of a split."""
    looks = HELD_OUT_LOOKS if split == "test" else TRAIN_LOOKS
    return looks[index % len(looks)]


def draw_scene(kind: Literal["image", "video"], split: Split, seed: int, index: int) -> Scene:
    """Return scene ``index`` of a split; captions take turns, so every 80 (train) or 16 (test) scenes are balanced."""
    shape, foreground, background = look_of(split, index)
    u = torch.rand(6, generator=generator("moving_shapes", seed, split, kind, index)).tolist()
    size = _between(SIZES, u[0])
    room = 1 - EXTENTS[shape] * size
    if kind == "image":
        return Scene(shape, foreground, background, size, (room * (2 * u[1] - 1), room * (2 * u[2] - 1)))
    amplitude = _between(AMPLITUDES, u[3])
    moves_x, moves_y = _DIRECTIONS[shape]
    centre = ((room - amplitude * moves_x) * (2 * u[1] - 1), (room - amplitude * moves_y) * (2 * u[2] - 1))
    frequency, phase = _between(FREQUENCIES, u[4]), 2 * math.pi * u[5]
    return Scene(shape, foreground, background, size, centre, amplitude, frequency, phase)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share


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
