"""Reading windows of what ``data prepare`` has encoded."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.video_streams import STRICT, Opener, Stream, damaged, require_whole, stack, upright


class GroupReader(PyAVReader):
    """A video that data prepare encoded: a window costs the frames that its own depend on, and no search for them."""

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        assert stream.index
        self.name, self._opener, self._number, self._index = path, opener, stream.number, stream.index
        self.timestamps = self._index.times
        require_whole(path, self.timestamps, stream)
        if self._index.keys[:1].tolist() != [0]:
            raise damaged(path)

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        wanted, decoder = set(indices.tolist()), self._decoder()
        found: list[NDArray[np.uint8]] = []
        try:
            for packet in self._packets(self._index.needed(indices)):
                found += [upright(frame) for frame in decoder.decode(packet) if frame.pts in wanted]
        except av.FFmpegError as error:
            raise damaged(self.name) from error
        if len(found) != len(indices):
            raise damaged(self.name)
        return stack(found, self.name)

    def _decoder(self) -> Any:
        decoder = av.CodecContext.create("h264", "r")
        decoder.extradata, decoder.thread_count, decoder.options = self._index.parameters, 1, STRICT
        return decoder

    def _packets(self, indices: list[int]) -> Iterator[Any]:
        """Yield these frames as they are stored, their number for a time, and at the end None."""
        with self._opener() if self._opener else open(self.name, "rb") as file:
            for index in indices:
                offset, size = self._index.places[index].tolist()
                file.seek(offset)
                packet = av.Packet(file.read(size))
                packet.pts = index
                yield packet
        yield None
