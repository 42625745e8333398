"""Videos that were decoded once and for all: uint8 frames with their times, of which a window is read in place.

Such a file, ``KEY.frames.npy`` in a shard, is a numpy array of one record: ``times`` float64 (F,) in seconds, sorted,
then ``frames`` uint8 (F, H, W, 3). Only the frames that are asked for are read, so their sha256 is compared by
``data check`` alone.
"""

import io
import math
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.listing import MAX_PIXELS
from lightning_mav.data.opened import descriptor, rows
from lightning_mav.data.readers import FileReader, open_video
from lightning_mav.data.shards import Extent
from lightning_mav.data.video_streams import Opener
from lightning_mav.errors import DataError

SUFFIX = ".frames.npy"
HEAD = 8192  # bytes read at once; they hold the header and most often all times
# numpy's format, but of one layout: nothing in a file from elsewhere is evaluated.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': \[\('times', '<f8', \(([1-9]\d*),\)\),"
    rb" \('frames', '\|u1', \(\2, ([1-9]\d*), ([1-9]\d*), 3\)\)\], 'fortran_order': False, 'shape': \(\), \}",
    re.DOTALL,
)


def is_windows(name: str) -> bool:
    """Say whether a sample of this name holds decoded frames."""
    return name.lower().endswith(SUFFIX)


def open_stored(name: str, media: Extent, open_encoded: Callable[[str, Opener], FileReader] = open_video) -> FileReader:
    """Open a video wherever its bytes lie, without comparing them with an index; an encoded one by ``open_encoded``.

    Raises:
        DataError: No video, damaged, or cut short.
    """
    return WindowReader(name, media) if is_windows(name) else open_encoded(name, media.open)


def encode_frames(times: NDArray[np.float64], frames: NDArray[np.uint8]) -> bytes:
    """Return the file of some frames.

    Args:
        times: (F,) in seconds, sorted.
        frames: (F, H, W, 3).
    """
    record = np.zeros((), [("times", "<f8", times.shape), ("frames", "u1", frames.shape)])
    record["times"], record["frames"] = times, frames
    file = io.BytesIO()
    np.save(file, record, allow_pickle=False)
    return file.getvalue()


class WindowReader:
    """A ``VideoReader`` of decoded frames.

    Args:
        name: What error messages call it.
        media: Where the bytes of its file lie.

    Raises:
        DataError: They are missing or damaged.
    """

    def __init__(self, name: str, media: Extent) -> None:
        self.name, self._file = name, media.file
        head = self._read(HEAD, media.offset)
        num, start, self._shape = self._layout(head, media.size)
        self._frames = media.offset + start + 8 * num
        if len(head) < start + 8 * num:
            head = self._read(start + 8 * num, media.offset)
        if len(head) < start + 8 * num:
            raise self._damaged()
        self.timestamps = np.frombuffer(head, "<f8", num, start)
        rises = bool((self.timestamps[1:] >= self.timestamps[:-1]).all())  # never beside a time that is no number
        if not (rises and math.isfinite(self.timestamps[0]) and math.isfinite(self.timestamps[-1])):
            raise self._damaged()

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        frames = rows(self._file, self._frames, (len(self.timestamps), *self._shape), indices)
        if frames is None:
            raise self._damaged()
        return torch.from_numpy(frames)

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame in turn, uint8 (H, W, 3)."""
        for index in range(len(self.timestamps)):
            yield self.frames(np.array([index]))[0].numpy()

    def _read(self, size: int, offset: int) -> bytes:
        return os.pread(descriptor(self._file), size, offset)

    def _layout(self, head: bytes, size: int) -> tuple[int, int, tuple[int, int, int]]:
        """Return the number of frames, where their times begin, and the shape of a frame."""
        found = HEADER.match(head)
        if not found:
            raise DataError(f"{self.name}: not written by data prepare --form windows; remove it or prepare it again")
        num, height, width = map(int, found.groups()[1:])
        start = 10 + int.from_bytes(found[1], "little")
        if size != start + num * (8 + 3 * height * width):
            raise self._damaged()
        if height * width > MAX_PIXELS:
            raise DataError(f"{self.name}: frames of {width} x {height} pixels are too large; remove it")
        return num, start, (height, width, 3)

    def _damaged(self) -> DataError:
        return DataError(f"{self.name}: damaged; prepare it again or remove it")
