"""Videos whose verdict is known beforehand: real moving shapes, and three ways of spoiling their motion.

They show held-out looks (split "test") and share one drawing: control number i shows the shape, colours, size and start
of real video number i. ``real`` must pass the oracle, the others must fail its motion tests and pass its text test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_mav.data.scenes import SHAPES, Scene, Split, draw_scene
from lightning_mav.data.transforms import dequantise
from lightning_mav.seeding import generator, hashed_seed

CONTROLS = ("real", "still", "jittered", "wrong_motion")


@dataclass(frozen=True)
class _Jittered(Scene):
    """Visits the places of its path out of order."""

    seed: int = 0

    def path(self, times: Tensor) -> Tensor:
        return super().path(times)[torch.randperm(len(times), generator=generator("jitter", self.seed))]


@dataclass(frozen=True)
class _Borrowed(Scene):
    """Moves about the middle as another shape does."""

    motion_of: str = ""

    def path(self, times: Tensor) -> Tensor:
        own = {field.name: getattr(self, field.name) for field in fields(Scene)}
        return Scene(**own | {"shape": self.motion_of, "centre": (0.0, 0.0)}).path(times)


def control_videos(kind: str, indices: Sequence[int], fps: float, num_frames: int, size: int, seed: int) -> Tensor:
    """Return float videos (B, 3, F, size, size) in [-1, 1] of one of ``CONTROLS``."""
    times = torch.arange(num_frames) / fps
    videos = [control_scene(kind, seed, index).render(times, size) for index in indices]
    return dequantise(torch.stack(videos).permute(0, 4, 1, 2, 3))


def control_captions(indices: Sequence[int], seed: int) -> list[str]:
    """Return the captions of the control videos with these indices, whatever their kind."""
    return [draw_scene("video", "test", seed, index).caption for index in indices]


def control_scene(kind: str, seed: int, index: int, split: Split = "test") -> Scene:
    """Return a scene of one of ``CONTROLS``."""
    scene = draw_scene("video", split, seed, index)
    chance = hashed_seed("control", seed, index)
    if kind == "still":
        return replace(scene, amplitude=0.0)
    if kind == "jittered":
        return _Jittered(**vars(scene), seed=chance)
    if kind == "wrong_motion":
        others = [shape for shape in SHAPES if shape != scene.shape]
        return _Borrowed(**vars(scene), motion_of=others[chance % len(others)])
    assert kind == "real"
    return scene


def motion_label(kind: str, scene: Scene) -> str:
    """Return what moves a control scene: the shape whose motion it has, "still" or "jittered"."""
    if isinstance(scene, _Borrowed):
        return scene.motion_of
    return kind if kind in ("still", "jittered") else scene.shape
