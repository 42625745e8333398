"""Reading videos with decord."""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch  # noqa: F401 - before decord, which can crash when it is loaded first
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.shards import IN_MEMORY
from lightning_mav.data.video_streams import SEEK_BEYOND, Opener, Stream, damaged, require_whole, stack
from lightning_mav.errors import DataError


class DecordReader:
    """A video read with decord by decoding forwards from its start, as after a seek or a skip it can show wrong frames.

    Long videos, which need to be sought in, it leaves to the next reader.
    """

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.name, self._opener = path, opener
        self._decord = decord
        try:
            self._rewind()
            height, width, channels = self._next().shape
        except (decord.DECORDError, RuntimeError) as error:
            raise DataError(f"{path}: decord cannot open it") from error
        self.timestamps = self._times()
        if {height, width} != {stream.width, stream.height}:
            raise DataError(f"{path}: decord chose another stream")
        if channels != 3:
            raise DataError(f"{path}: decord takes row padding for a channel, as it does in very narrow videos")
        if len(self.timestamps) > SEEK_BEYOND:
            raise DataError(f"{path}: too long to decode from its start")
        require_whole(path, self.timestamps, stream)

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        if indices[0] < self._position:
            self._rewind()
        wanted = {int(index) for index in indices}
        try:
            places = range(self._position, int(indices[-1]) + 1)
            decoded = ((place, self._next()) for place in places)
            return stack([frame.asnumpy() for place, frame in decoded if place in wanted], self.name)
        except (self._decord.DECORDError, RuntimeError) as error:
            raise damaged(self.name) from error

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame in turn, uint8 (H, W, 3), upright.

        Raises:
            DataError: some cannot be decoded.
        """
        self._rewind()
        try:
            for _ in range(len(self.timestamps)):
                yield self._next().asnumpy()
        except (self._decord.DECORDError, RuntimeError, StopIteration) as error:
            raise damaged(self.name) from error

    def _rewind(self) -> None:
        file = self.name if self._opener is None else self._small(self._opener())
        self._video = self._decord.VideoReader(file, num_threads=1)
        self._position = 0

    def _small(self, file: BinaryIO) -> BinaryIO:
        if file.seek(0, os.SEEK_END) > IN_MEMORY:
            raise DataError(f"{self.name}: too large for decord, which would copy it into memory")
        file.seek(0)
        if file.read(4) == b"RIFF":
            raise DataError(f"{self.name}: decord crashes on some damaged avi files in memory")
        file.seek(0)
        return file

    def _next(self) -> Any:
        self._position += 1
        return self._video.next()

    def _times(self) -> NDArray[np.float64]:
        num = len(self._video)
        times = np.asarray(self._video.get_frame_timestamp(range(num)), np.float64)[:, 0]
        # Containers without timestamps (avi) give huge negative numbers; their rate is constant by construction.
        return np.sort(times) if times.min() >= 0 else np.arange(num) / self._video.get_avg_fps()
