"""Reading video files: the ``VideoReader`` protocol, decord first, then torchcodec if it is installed, then PyAV.

All read the stream with the most pixels (the first of equals), turn frames upright and take times from timestamps. A
reader belongs to the process that opened it, so sources open theirs inside the ``DataLoader``'s worker.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.decord_reader import DecordReader
from lightning_mav.data.listing import require_regular_file
from lightning_mav.data.prepared_reader import GroupReader
from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.torchcodec_reader import TorchCodecReader, is_installed
from lightning_mav.data.video_streams import Opener, largest_stream
from lightning_mav.errors import DataError


class VideoReader(Protocol):
    """One opened video. Another kind of reader is another class with these three members."""

    @property
    def name(self) -> str:
        """What error messages call it, usually its path."""
        ...

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Times of all frames in seconds, (N,), sorted."""
        ...

    def frames(self, indices: NDArray[np.int64], /) -> Tensor:
        """Return the frames at strictly ascending ``indices`` into ``timestamps``, uint8 (n, H, W, 3), upright."""
        ...


class FileReader(VideoReader, Protocol):
    """A reader that can also decode a whole file."""

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame in turn, uint8 (H, W, 3), upright.

        Raises:
            DataError: some cannot be decoded.
        """
        ...


def open_video(path: str, opener: Opener | None = None) -> FileReader:
    """Open a video with the first reader that can.

    Args:
        path: its file; with an opener, only what error messages call it.
        opener: opens a video that is not a file of its own.

    Raises:
        DataError: not a regular file, no video in it, damaged, or cut short.
    """
    if opener is None:
        require_regular_file(path)
        path = os.path.abspath(path)  # never taken for a protocol such as "concat:"
    stream = largest_stream(path, opener)
    if stream.index:
        return GroupReader(path, stream, opener)
    with suppress(DataError, ImportError):
        return DecordReader(path, stream, opener)
    if is_installed():
        with suppress(DataError):
            return TorchCodecReader(path, stream, opener)
    return PyAVReader(path, stream, opener)


def open_with_pyav(name: str, opener: Opener) -> FileReader:
    """Open a video with PyAV alone, for what another reader gets wrong; the arguments are those of ``open_video``.

    Raises:
        DataError: no video in it, damaged, or cut short.
    """
    return PyAVReader(name, largest_stream(name, opener), opener)
