"""Reading videos with torchcodec, where that is installed and finds FFmpeg's libraries."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.video_streams import SEEK_BEYOND, Opener, Stream, damaged
from lightning_mav.errors import DataError

AT_ONCE = 16  # frames


@cache
def is_installed() -> bool:
    """Say whether torchcodec is here and has found FFmpeg's libraries."""
    try:
        from torchcodec import ffmpeg_major_version
    except (ImportError, RuntimeError):
        return False
    return ffmpeg_major_version is not None


class TorchCodecReader(PyAVReader):
    """A video decoded with torchcodec, forwards from its start, as after a seek it can show wrong frames.

    Its times are those of its packets. It leaves long videos to the next reader, and avi, whose last frame can be lost.

    Raises:
        DataError: torchcodec cannot open it, or should not.
    """

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        from torchcodec.decoders import VideoDecoder

        super().__init__(path, stream, opener)
        file: Any = opener() if opener else open(path, "rb")  # noqa: SIM115 - the decoder's, as long as it lives
        if len(self.timestamps) > SEEK_BEYOND or file.read(4) == b"RIFF":
            raise DataError(f"{path}: too long to decode from its start, or avi")
        file.seek(0)
        try:
            self._decoder = VideoDecoder(file, stream_index=stream.place, dimension_order="NHWC", num_ffmpeg_threads=1)
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path}: torchcodec cannot open it") from error
        if len(self._decoder) != len(self.timestamps):
            raise DataError(f"{path}: {len(self._decoder)} frames by torchcodec, but {len(self.timestamps)} packets")
        self._position = 0

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        end, found = int(indices[-1]) + 1, []
        for start in range(0 if indices[0] < self._position else self._position, end, AT_ONCE):
            self._position = min(start + AT_ONCE, end)
            decoded, wanted = self._decoded(start, self._position), (indices >= start) & (indices < self._position)
            found.append(decoded[indices[wanted] - start])
        return torch.cat(found)

    def _decoded(self, start: int, end: int) -> Tensor:
        try:
            decoded: Tensor = self._decoder.get_frames_in_range(start, end).data
        except (RuntimeError, IndexError) as error:
            raise damaged(self.name) from error
        return decoded

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame in turn, uint8 (H, W, 3), upright.

        Raises:
            DataError: some cannot be decoded.
        """
        for start in range(0, len(self.timestamps), AT_ONCE):
            yield from self._decoded(start, min(start + AT_ONCE, len(self.timestamps))).numpy()
