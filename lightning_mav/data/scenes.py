"""Scenes of moving shapes, the embedded data: functions of (kind, split, seed, index), and how they are drawn.

Captioned stills show a coloured shape at any place; silent videos show each kind of shape moving in its own way. No
caption mentions motion and no video has a caption, so only a method that learns appearance from text and motion from
unlabelled video can give the right video for a text. Sixteen captions are held out of everything.

The frame is [-1, 1] x [-1, 1], x to the right, y down; sizes and amplitudes are in these units.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

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
