"""What all readers of video files share: which stream they read, and how pictures and errors come out."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.listing import MAX_PIXELS
from lightning_mav.errors import DataError

MARK = "closed groups of pictures, no B-frames"  # the comment in what data prepare encodes
STRICT = {"err_detect": "explode"}  # of a decoder: an error rather than a made-up picture
SEEK_BEYOND = 2000  # frames; nearer ones are reached by decoding, as pictures after a seek can be wrong

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a file lie, by which any of them is decoded without its container.

    Attributes:
        times: (N,) in seconds, sorted.
        places: (N, 2), first byte and number of bytes.
        keys: (K,), which of them are key frames.
        parameters: What the decoder must know beforehand.
    """

    times: NDArray[np.float64]
    places: NDArray[np.int64]
    keys: NDArray[np.int64]
    parameters: bytes

    @classmethod
    def of(cls, stream: Any) -> "FrameIndex":
        """Return the index of a container's stream."""
        entries = [(entry.timestamp, entry.pos, entry.size, entry.is_keyframe) for entry in stream.index_entries]
        ticks, *places, is_key = np.array(entries, np.int64).reshape(-1, 4).T
        parameters = stream.codec_context.extradata or b""
        return cls(ticks * float(stream.time_base), np.stack(places, 1), np.flatnonzero(is_key), parameters)

    def needed(self, indices: NDArray[np.int64]) -> list[int]:
        """Return the frames to decode for these: from the key frame before each of them on."""
        groups = np.searchsorted(self.keys, indices, side="right")
        last = {int(self.keys[group - 1]): int(index) for group, index in zip(groups, indices, strict=True)}
        return [index for key, end in last.items() for index in range(key, end + 1)]


@dataclass(frozen=True)
class Stream:
    """The video stream to read.

    Attributes:
        number: Among the video streams.
        place: Among all streams.
        width: In pixels.
        height: In pixels.
        frames: As declared; 0 if unknown.
        end: Time at which the last frame ends, as mkv and webm declare it of a stream; 0 if unknown.
        index: Of a file that data prepare encoded, where its frames lie.
    """

    number: int
    place: int
    width: int
    height: int
    frames: int
    end: float = 0.0
    index: FrameIndex | None = None


def largest_stream(path: str, opener: Opener | None = None) -> Stream:
    """Return the video stream with the most pixels, the first of equals."""
    with opened(path, opener) as container:
        known = [(i, s) for i, s in enumerate(container.streams.video) if s.codec_context]  # of a codec that is known
        ours = bool(known) and known[0][1].codec_context.name == "h264" and container.metadata.get("comment") == MARK
        index = FrameIndex.of(known[0][1]) if ours else None
        streams = [Stream(i, s.index, s.width, s.height, s.frames, _end(s), index) for i, s in known]
    if not streams:
        raise DataError(f"{path}: no video stream; remove it from the data")
    largest = max(streams, key=lambda stream: stream.width * stream.height)
    if largest.width * largest.height > MAX_PIXELS:
        raise DataError(f"{path}: frames of {largest.width} x {largest.height} pixels are too large; remove it")
    return largest


def _end(stream: Any) -> float:
    """Return the time that a stream's own tag states as hours:minutes:seconds; 0 if there is none."""
    found = re.match(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,9})?)", stream.metadata.get("DURATION", ""))
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0.0


@contextmanager
def opened(path: str, opener: Opener | None) -> Iterator[Any]:
    """PyAV's container as a context in which its errors name the file."""
    container = None
    try:
        # Playlists and the like must not make the library open anything else, local files included.
        with (
            opener() if opener else open(path, "rb") as file,
            av.open(file, options={"protocol_whitelist": "none"}, metadata_errors="replace") as container,
        ):
            yield container
    except (av.FFmpegError, OSError) as error:
        if container is None:
            raise DataError(f"{path}: cannot be read as a video ({error.strerror}); remove it") from error
        raise damaged(path) from error


class _Converter(threading.local):
    """Changes pixel formats: one for each thread, as to make one takes longer than to convert a window."""

    def __init__(self) -> None:
        self.reformat = VideoReformatter().reformat


_CONVERTER = _Converter()


def upright(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as uint8 (H, W, 3)."""
    return np.rot90(_CONVERTER.reformat(frame, format="rgb24", threads=1).to_ndarray(), frame.rotation // 90)


def stack(frames: list[NDArray[np.uint8]], path: str) -> Tensor:
    """Return frames (H, W, 3) as one tensor (n, H, W, 3).

    Raises:
        DataError: they have several sizes.
    """
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"{path}: its frames change size; encode it again at one size")
    return torch.from_numpy(np.stack(frames))


def require_whole(path: str, timestamps: NDArray[np.float64], stream: Stream) -> None:
    """Require about as many frames as the stream declares, or as lead at an even rate to the end that it declares.

    Raises:
        DataError: They are fewer, or none.
    """
    num, declared = len(timestamps), stream.frames or _frames_until(stream.end, timestamps)
    if num < 0.9 * declared or num == 0:
        raise DataError(f"{path}: holds {num} of its {declared} frames; fetch it again or remove it")


def _frames_until(end: float, timestamps: NDArray[np.float64]) -> int:
    """Return how many frames there would be if they went on to ``end``; 0 if that is unknown or their rate varies."""
    intervals = np.diff(timestamps)
    usual = float(np.median(intervals)) if len(intervals) else 0.0
    # Cameras lose a frame now and then; a longer hold, as in recorded screens, is a rate that varies, to the last one.
    even = usual > 0 and np.mean(np.abs(intervals - usual) < 0.2 * usual) > 0.9 and intervals.max() < 3.5 * usual
    return len(timestamps) + max(0, round((end - timestamps[-1]) / usual) - 1) if even else 0


def damaged(path: str) -> DataError:
    """Return the error of a file that does not decode."""
    return DataError(f"{path}: damaged, some frames cannot be decoded; repair it or remove it")
