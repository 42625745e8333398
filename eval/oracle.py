"""The analytic judge of moving shapes: what is in a video and how it moves, with nothing trained.

Pixels are those of ``lightning_mav.data.scenes``: one coloured shape on a plain background. Each frame is read
on its own (colours, mask, centroid, shape), then the centroid's path is compared with the shape's own motion.

Legend: N frames, P pixels, S matched templates; places are (x right, y down) with the frame spanning [-1, 1].
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mav.data.scenes import BACKGROUNDS, CAPTIONS, FOREGROUNDS, SHAPES, SIZES, coverage
from lightning_mav.errors import DataError

MATCH_SIZE = 16
"""Frames are averaged down to this many pixels before they are read."""

FAITHFUL_SHARE = 0.75
"""Text faithful: the least share of frames in which shape and foreground are right."""

MOTIONS = {"ring": "vertical", "square": "horizontal", "triangle": "diagonal", "cross": "orbit"}
"""The motion that belongs to each shape; "none" is what a video has whose path fits no sinusoid."""

_FARTHEST = 6  # pixels; the smallest shape fully covers about as many
_FAINT = 0.25  # share of the foreground under which a pixel counts as background
_STILL = 1e-3  # half frames; a path that deviates less has nothing to fit
_MOVING = {"vertical": (1,), "horizontal": (0,), "diagonal": (0, 1), "orbit": (0, 1)}
_FREQUENCIES = torch.linspace(0.7, 1.3, 25, dtype=torch.float64)


@dataclass(frozen=True)
class Judgement:
    """What the oracle saw in one video.

    Lengths are in half frames (the frame spans [-1, 1]); pairs are (across, down). ``shape``, ``foreground`` and
    ``background`` are the names seen in most frames, ``motion`` the dominant motion, ``frame_difference`` the mean
    absolute difference of neighbouring frames for pixels in [-1, 1].
    """

    caption: str
    shape: str
    foreground: str
    background: str
    motion: str
    text_faithful: bool
    background_right: bool
    dominant_motion: bool
    strict_law: bool
    r2: tuple[float, float]
    amplitude: tuple[float, float]
    deviation: tuple[float, float]
    correlation: float
    size_deviation: float
    frame_difference: float


@torch.no_grad()
def judge(videos: Tensor, fps: float, captions: Sequence[str]) -> list[Judgement]:
    """Judge videos against their captions.

    Args:
        videos: (B, 3, F, H, W), pixels in [-1, 1], square frames of at least ``MATCH_SIZE`` pixels.
        fps: frames per second of all of them, 6 or more.
        captions: B captions of moving shapes.

    Raises:
        DataError: a caption that is none of moving shapes' or a video the oracle cannot read.
    """
    _check(videos, captions)
    batch, _, num_frames = videos.shape[:3]
    frames = F.adaptive_avg_pool2d(videos.float().flatten(0, 1), MATCH_SIZE)
    frames = frames.view(batch, 3, num_frames, MATCH_SIZE, MATCH_SIZE).transpose(1, 2).flatten(0, 1)
    names, places, sizes = (seen.view(batch, num_frames, *seen.shape[1:]) for seen in _read(frames))
    paths = _fit_paths(places, sizes, fps)
    differences = frame_difference(videos).tolist()
    return [_judgement(*row) for row in zip(captions, names, paths, differences, strict=True)]


def summary(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return shares in [0, 1] of the videos that pass each test, their mean frame difference, and their number."""

    def mean(name: str) -> float:
        return math.fsum(getattr(one, name) for one in judgements) / len(judgements)

    shares = ("text_faithful", "background_right", "dominant_motion", "strict_law")
    return {"n": float(len(judgements)), **{name: mean(name) for name in (*shares, "frame_difference")}}


def frame_difference(videos: Tensor) -> Tensor:
    """Return (B,) mean absolute difference of neighbouring frames of videos (B, 3, F, H, W)."""
    return videos.diff(dim=2).abs().flatten(1).mean(1)


@dataclass(frozen=True)
class _Path:
    """How one centroid moves; pairs are (across, down)."""

    r2: tuple[float, float]
    amplitude: tuple[float, float]
    deviation: tuple[float, float]
    correlation: float
    size_deviation: float

    @property
    def axis(self) -> str:
        """The kind of path, by the ratio of its two standard deviations and their correlation."""
        across, down = self.deviation
        if min(across, down) < 0.5 * max(across, down):
            return "horizontal" if across > down else "vertical"
        return "diagonal" if self.correlation > 0.6 else "orbit"

    def fits(self, motion: str, least_r2: float) -> bool:
        """Whether every coordinate that moves in this motion follows a sinusoid."""
        return all(self.r2[i] > least_r2 for i in _MOVING[motion])

    def obeys(self, motion: str) -> bool:
        """The strict law of a motion."""
        if not self.fits(motion, 0.9):
            return False
        if motion in ("horizontal", "vertical"):
            (moving,) = _MOVING[motion]
            return self.amplitude[moving] > 0.2 and self.deviation[1 - moving] < 0.08 and self.size_deviation < 0.12
        straight = self.correlation > 0.8 if motion == "diagonal" else abs(self.correlation) < 0.6
        return min(self.amplitude) > 0.15 and straight


def _check(videos: Tensor, captions: Sequence[str]) -> None:
    if videos.ndim != 5 or videos.shape[1] != 3 or videos.shape[3] != videos.shape[4] or videos.shape[3] < MATCH_SIZE:
        raise DataError(
            f"the oracle reads square videos (B, 3, F, H, W) from {MATCH_SIZE} pixels up, not {tuple(videos.shape)}"
        )
    if len(captions) != len(videos):
        raise DataError(f"{len(videos)} videos came with {len(captions)} captions; each video needs its own")
    for caption in captions:
        if caption not in CAPTIONS:
            raise DataError(f'"{caption}" is no caption of moving shapes; they read like "{CAPTIONS[0]}"')


def _judgement(caption: str, names: Tensor, path: _Path, difference: float) -> Judgement:
    """Compare what was seen, names (F, 3), with what the caption asks for."""
    wanted = torch.tensor(_indices(caption))
    shape, foreground, background = names.mode(0).values.tolist()
    right = names == wanted
    motion = MOTIONS[SHAPES[wanted[0]]]
    axis = path.axis
    return Judgement(
        caption=caption,
        shape=SHAPES[shape],
        foreground=list(FOREGROUNDS)[foreground],
        background=list(BACKGROUNDS)[background],
        motion=axis if path.fits(axis, 0.5) else "none",
        text_faithful=bool(right[:, :2].all(1).float().mean() >= FAITHFUL_SHARE),
        background_right=bool(right[:, 2].float().mean() >= FAITHFUL_SHARE),
        dominant_motion=axis == motion and path.fits(axis, 0.5),
        strict_law=path.obeys(motion),
        frame_difference=difference,
        **vars(path),
    )


def _indices(caption: str) -> tuple[int, int, int]:
    """Return the numbers of a caption's shape, foreground and background."""
    match = re.fullmatch(r"a (\w+) (\w+) on a (\w+) background", caption)
    assert match
    foreground, shape, background = match.groups()
    return SHAPES.index(shape), list(FOREGROUNDS).index(foreground), list(BACKGROUNDS).index(background)


def _read(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Read frames (N, 3, MATCH_SIZE, MATCH_SIZE) one by one.

    Returns:
        names (N, 3) int64, the numbers of shape, foreground and background; places (N, 2) of the centroid; sizes (N,),
        the square root of the area; places and sizes float64 in half frames.
    """
    background, foreground = _colours(frames)
    mask = _mask(frames, background, foreground)
    area = mask.sum((1, 2)).clamp(min=1e-6)
    axis = torch.arange(MATCH_SIZE) + 0.5  # pixels
    place = torch.stack([(mask.sum(1) * axis).sum(1), (mask.sum(2) * axis).sum(1)], 1) / area[:, None]
    names = torch.stack([_shape(mask, place), _nearest(foreground, FOREGROUNDS), _nearest(background, BACKGROUNDS)], 1)
    pixel = 2 / MATCH_SIZE
    return names, place.double() * pixel - 1, area.double().sqrt() * pixel


def _colours(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return background (N, 3), the border's median, and foreground (N, 3), the median of the farthest pixels."""
    border = torch.ones(MATCH_SIZE, MATCH_SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    background = frames[:, :, border].median(2).values
    distance = (frames - background[:, :, None, None]).square().sum(1).flatten(1)
    farthest = distance.topk(_FARTHEST, dim=1).indices[:, None].expand(-1, 3, -1)
    return background, frames.flatten(2).gather(2, farthest).median(2).values


def _mask(frames: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """Return (N, H, W) in [0, 1]: where each pixel lies between background and foreground; faint ones are 0."""
    way = foreground - background
    share = torch.einsum("nchw,nc->nhw", frames - background[:, :, None, None], way)
    share = share / way.square().sum(1).clamp(min=1e-6)[:, None, None]
    return torch.where(share > _FAINT, share.clamp(0, 1), 0)


def _nearest(colours: Tensor, palette: dict[str, tuple[int, int, int]]) -> Tensor:
    """Return (N,) numbers of the palette's entries nearest to colours (N, 3) in [-1, 1]."""
    return torch.cdist(colours, torch.tensor(list(palette.values())) / 127.5 - 1).argmin(1)


@cache
def _templates() -> Tensor:
    """Return (4 shapes, S, P) unit-norm pictures of the shapes in all sizes and places within a pixel of the middle."""
    pixel = 2 / MATCH_SIZE
    steps = torch.linspace(-1, 1, 7) * pixel
    places = torch.cartesian_prod(steps, steps)
    sizes = torch.linspace(0.8 * SIZES[0], 1.2 * SIZES[1], 9).tolist()
    pictures = [torch.cat([coverage(shape, size, places, MATCH_SIZE) for size in sizes]) for shape in SHAPES]
    return F.normalize(torch.stack(pictures).flatten(2), dim=2)


def _shape(mask: Tensor, place: Tensor) -> Tensor:
    """Return (N,) numbers of the shapes whose best template is most like mask (N, H, W) about place (N, 2)."""
    half = MATCH_SIZE // 2
    padded = F.pad(mask, (half, half, half, half))
    start = place.round().long()
    window = torch.arange(MATCH_SIZE)
    columns, rows = (start[:, i, None] + window for i in (0, 1))
    moved = padded[torch.arange(len(mask))[:, None, None], rows[:, :, None], columns[:, None, :]].flatten(1)
    templates = _templates()
    likeness = torch.einsum("np,ksp->nks", moved, templates)
    return likeness.amax(2).argmax(1)


def _fit_paths(places: Tensor, sizes: Tensor, fps: float) -> list[_Path]:
    """Describe the paths of centroids places (B, F, 2), whose shapes have sizes (B, F), both float64."""
    centred = places - places.mean(1, keepdim=True)
    deviation = centred.square().mean(1).sqrt()
    correlation = centred.prod(2).mean(1) / deviation.prod(1).clamp(min=1e-9)
    r2, amplitude = _fit_sinusoids(places, fps)
    size_deviation = sizes.std(1, correction=0) / sizes.mean(1)
    columns = (r2, amplitude, deviation, correlation, size_deviation)
    return [
        _Path(tuple(r2), tuple(amplitude), tuple(deviation), correlation, size_deviation)
        for r2, amplitude, deviation, correlation, size_deviation in zip(*(c.tolist() for c in columns), strict=True)
    ]


def _fit_sinusoids(places: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    """Fit a sinusoid and a constant to each coordinate of places (B, F, 2).

    Returns:
        R2 (B, 2) and amplitude (B, 2) at each coordinate's best frequency.
    """
    angle = 2 * math.pi * _FREQUENCIES[:, None] * torch.arange(places.shape[1]) / fps
    waves = torch.stack([angle.sin(), angle.cos(), torch.ones_like(angle)], 2)
    weights = torch.linalg.pinv(waves) @ places[:, None]  # (B, frequencies, 3, 2)
    residual = (waves @ weights - places[:, None]).square().mean(2)
    least, best = residual.min(1)
    amplitude = weights[:, :, 0].hypot(weights[:, :, 1]).gather(1, best[:, None])[:, 0]
    variance = places.var(1, correction=0)
    r2 = torch.where(variance > _STILL**2, 1 - least / variance, 0)
    return r2, amplitude
