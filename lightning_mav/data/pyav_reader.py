"""Reading videos with PyAV, which opens almost all there are."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.video_streams import (
    SEEK_BEYOND,
    STRICT,
    Opener,
    Stream,
    damaged,
    opened,
    require_whole,
    stack,
    upright,
)
from lightning_mav.errors import DataError


class PyAVReader:
    """A video read with PyAV, opened anew for each window."""

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        self.name, self._opener, self._number = path, opener, stream.number
        with opened(path, opener) as container:
            chosen = container.streams.video[stream.number]
            packets = [p for p in container.demux(chosen) if p.size and not p.is_discard]
            known = all(packet.pts is not None for packet in packets)
            # One tick is a frame where the container has no timestamps.
            self._pts = np.sort([packet.pts if known else i for i, packet in enumerate(packets)])
            tick = chosen.time_base if known else 1 / chosen.average_rate
        self.timestamps = self._pts.astype(np.float64) * float(tick)
        require_whole(path, self.timestamps, stream)

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        first, wanted = int(indices[0]), {int(index) for index in indices}
        if first > SEEK_BEYOND:
            with suppress(DataError):  # some files decode only from their start
                return self._collect(wanted, first)
        return self._collect(wanted, 0)

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame in turn, uint8 (H, W, 3), upright.

        Raises:
            DataError: some cannot be decoded.
        """
        missing = len(self.timestamps)
        for _, frame in self._decode(0):
            missing -= 1
            yield upright(frame)
        if missing > 0:
            raise damaged(self.name)

    def _collect(self, wanted: set[int], seek: int) -> Tensor:
        found: list[NDArray[np.uint8]] = []
        for index, frame in self._decode(seek):
            if index in wanted:
                found.append(upright(frame))
            if len(found) == len(wanted):
                return stack(found, self.name)
        raise damaged(self.name)

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        """Open the container and the stream to decode."""
        with opened(self.name, self._opener) as container:
            stream = container.streams.video[self._number]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = STRICT
            yield container, stream

    def _decode(self, seek: int) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame), from the key frame before ``seek`` on.

        The first frame is placed by its timestamp and the others counted, as timestamps of single frames can be wrong.
        """
        with self._stream() as (container, stream):
            if seek:
                container.seek(int(self._pts[seek]), stream=stream)
            index = -1
            for frame in container.decode(stream):
                index = int(np.searchsorted(self._pts, frame.pts)) if seek and index < 0 else index + 1
                yield index, frame
