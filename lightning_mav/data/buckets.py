"""Buckets: samples of like aspect and length share their batches, so that less is cropped and short videos count."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from lightning_mav.data.manifest import Sample
from lightning_mav.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """What the samples of a bucket are cut to: frames, and height and width in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class BucketConfig:
    """Which buckets there are: one for each aspect and length.

    Attributes:
        aspects: Width over height; a frame has about as many pixels as a square of ``data.size``.
        lengths: Frames of a sample, of which a video takes the most that it has; none for ``data.frames`` alone.
        multiple: Height and width are multiples of it.

    Raises:
        ConfigError: A number that must be positive is not.
    """

    aspects: tuple[float, ...] = (1.0,)
    lengths: tuple[int, ...] = ()
    multiple: int = 8

    def __post_init__(self) -> None:
        if not self.aspects or min(self.aspects) <= 0 or min(self.lengths, default=1) < 1 or self.multiple < 1:
            raise ConfigError(f"data.buckets: expected aspects, lengths and multiple above 0, got {self}")

    def shapes(self, size: int, num_frames: int) -> tuple[Shape, ...]:
        """Return the shape of each bucket, for squares of ``size`` pixels and ``num_frames`` frames without buckets."""
        lengths = self.lengths or (num_frames,)
        return tuple(Shape(length, *self._sides(aspect, size)) for length in lengths for aspect in self.aspects)

    def _sides(self, aspect: float, size: int) -> tuple[int, int]:
        """Return height and width."""
        height, width = size / sqrt(aspect), size * sqrt(aspect)
        return self._rounded(height), self._rounded(width)

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


@dataclass(frozen=True)
class Buckets:
    """Which sample belongs where.

    Attributes:
        shapes: Of the buckets.
        number: (N,) of each sample's bucket.
    """

    shapes: tuple[Shape, ...]
    number: NDArray[np.int64]

    def shape(self, index: int) -> Shape:
        """Return the shape that sample ``index`` is cut to."""
        return self.shapes[int(self.number[index])]


def divide(samples: Iterable[Sample], shapes: tuple[Shape, ...]) -> Buckets:
    """Put each sample into the longest bucket that it fills, and among these into that of the nearest aspect.

    One that fills none goes into the shortest, and is an error when it is read.
    """
    return Buckets(shapes, np.array([_nearest(sample, shapes) for sample in samples], np.int64))


def _nearest(sample: Sample, shapes: tuple[Shape, ...]) -> int:
    frames, aspect = sample.frames or 1, log(sample.width / sample.height)

    def distance(number: int) -> tuple[bool, int, float]:
        shape = shapes[number]
        return shape.frames > frames, abs(shape.frames - frames), abs(log(shape.width / shape.height) - aspect)

    return min(range(len(shapes)), key=distance)
