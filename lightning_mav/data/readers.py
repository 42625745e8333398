"""Reading video files: the ``VideoReader`` protocol, decord first, then torchcodec if it is installed, then PyAV.

All read the stream with the most pixels (the first of equals), turn frames upright and take times from timestamps. A
reader belongs to the process that opened it, so sources open theirs inside the ``DataLoader``'s worker.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
import torch  # before decord, which can crash when it is loaded first
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from lightning_mav.data.listing import MAX_PIXELS, require_regular_file
from lightning_mav.data.shards import IN_MEMORY
from lightning_mav.errors import DataError

MARK = "closed groups of pictures, no B-frames"  # the comment in what data prepare encodes
STRICT = {"err_detect": "explode"}  # of a decoder: an error rather than a made-up picture
SEEK_BEYOND = 2000  # frames; nearer ones are reached by decoding, as pictures after a seek can be wrong

Opener = Callable[[], BinaryIO]


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
        index: Of a file that data prepare encoded, where its frames lie.
    """

    number: int
    place: int
    width: int
    height: int
    frames: int
    index: "FrameIndex | None" = None


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
    from lightning_mav.data.torchcodec_reader import TorchCodecReader, is_installed

    with suppress(DataError, ImportError):
        return DecordReader(path, stream, opener)
    if is_installed():
        with suppress(DataError):
            return TorchCodecReader(path, stream, opener)
    return PyAVReader(path, stream, opener)


def largest_stream(path: str, opener: Opener | None = None) -> Stream:
    """Return the video stream with the most pixels, the first of equals."""
    with _opened(path, opener) as container:
        known = [(i, s) for i, s in enumerate(container.streams.video) if s.codec_context]  # of a codec that is known
        ours = bool(known) and known[0][1].codec_context.name == "h264" and container.metadata.get("comment") == MARK
        index = FrameIndex.of(known[0][1]) if ours else None
        streams = [Stream(i, s.index, s.width, s.height, s.frames, index) for i, s in known]
    if not streams:
        raise DataError(f"{path}: no video stream; remove it from the data")
    largest = max(streams, key=lambda stream: stream.width * stream.height)
    if largest.width * largest.height > MAX_PIXELS:
        raise DataError(f"{path}: frames of {largest.width} x {largest.height} pixels are too large; remove it")
    return largest


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
        _require_whole(path, len(self.timestamps), stream)

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


class PyAVReader:
    """A video read with PyAV, opened anew for each window."""

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        self.name, self._opener, self._number = path, opener, stream.number
        with _opened(path, opener) as container:
            chosen = container.streams.video[stream.number]
            packets = [p for p in container.demux(chosen) if p.size and not p.is_discard]
            known = all(packet.pts is not None for packet in packets)
            # One tick is a frame where the container has no timestamps.
            self._pts = np.sort([packet.pts if known else i for i, packet in enumerate(packets)])
            tick = chosen.time_base if known else 1 / chosen.average_rate
        _require_whole(path, len(packets), stream)
        self.timestamps = self._pts.astype(np.float64) * float(tick)

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
            yield _upright(frame)
        if missing > 0:
            raise damaged(self.name)

    def _collect(self, wanted: set[int], seek: int) -> Tensor:
        found: list[NDArray[np.uint8]] = []
        for index, frame in self._decode(seek):
            if index in wanted:
                found.append(_upright(frame))
            if len(found) == len(wanted):
                return stack(found, self.name)
        raise damaged(self.name)

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        """Open the container and the stream to decode."""
        with _opened(self.name, self._opener) as container:
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


class GroupReader(PyAVReader):
    """A video that data prepare encoded: a window costs the frames that its own depend on, and no search for them."""

    def __init__(self, path: str, stream: Stream, opener: Opener | None = None) -> None:
        assert stream.index
        self.name, self._opener, self._number, self._index = path, opener, stream.number, stream.index
        self.timestamps = self._index.times
        _require_whole(path, len(self.timestamps), stream)
        if self._index.keys[:1].tolist() != [0]:
            raise damaged(path)

    def frames(self, indices: NDArray[np.int64]) -> Tensor:
        """Return uint8 frames (n, H, W, 3)."""
        wanted, decoder = set(indices.tolist()), self._decoder()
        found: list[NDArray[np.uint8]] = []
        try:
            for packet in self._packets(self._index.needed(indices)):
                found += [_upright(frame) for frame in decoder.decode(packet) if frame.pts in wanted]
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


@contextmanager
def _opened(path: str, opener: Opener | None) -> Iterator[Any]:
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


def _upright(frame: Any) -> NDArray[np.uint8]:
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


def _require_whole(path: str, num_frames: int, stream: Stream) -> None:
    if num_frames < 0.9 * stream.frames or num_frames == 0:
        raise DataError(f"{path}: holds {num_frames} of its {stream.frames} frames; fetch it again or remove it")


def damaged(path: str) -> DataError:
    """Return the error of a file that does not decode."""
    return DataError(f"{path}: damaged, some frames cannot be decoded; repair it or remove it")
