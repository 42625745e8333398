"""Making videos small and quick to read, in shards: encoded with key frames close together, or decoded for good."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Protocol

import av
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.candidates import Candidate, kind_of, reason, survey
from lightning_mav.data.crew import Crew, in_order
from lightning_mav.data.manifest import json_line
from lightning_mav.data.packing import Item, begin, put
from lightning_mav.data.readers import open_with_pyav
from lightning_mav.data.shards import Bad
from lightning_mav.data.transforms import resize_to_cover
from lightning_mav.data.video_streams import MARK, stack
from lightning_mav.data.videos import nearest
from lightning_mav.data.windows import SUFFIX, encode_frames, open_stored
from lightning_mav.errors import DataError

TICKS = 90_000  # per second: times keep to a hundredth of a millisecond


class Form(Protocol):
    """What becomes of a video; another form is another frozen dataclass with these two members."""

    suffix: ClassVar[str]

    def __call__(self, candidate: Candidate, /) -> bytes:
        """Return the file that it becomes."""
        ...


@dataclass(frozen=True)
class Transcoder:
    """Encodes a video anew as h264 in mp4, upright, without sound, each frame at its own time.

    Attributes:
        size: Short side in pixels; smaller videos keep theirs.
        gop: Frames from one key frame to the next.
        crf: Quality, 0 lossless, 23 the encoder's default.
    """

    suffix: ClassVar[str] = ".mp4"
    size: int
    gop: int
    crf: int

    def __call__(self, candidate: Candidate) -> bytes:
        """Return the mp4 file; its bytes depend on the video and the settings alone.

        Raises:
            DataError: The video cannot be decoded from its first to its last frame, or its caption is no text.
        """
        candidate.read_caption()
        # Not by decord: beside its thread x264 now and then gives other bytes for the same frames.
        reader = open_stored(candidate.name, candidate.media, open_with_pyav)
        height, width = self._shrunk(reader.frames(np.arange(1))[0].numpy()).shape[:2]
        ticks = np.round((reader.timestamps - reader.timestamps[0]) * TICKS).astype(int).tolist()
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            container.metadata["comment"] = MARK
            stream = self._stream(container, height, width)
            for tick, frame in zip(ticks, reader.all_frames(), strict=True):
                picture = av.VideoFrame.from_ndarray(self._shrunk(frame), format="rgb24")
                picture.pts, picture.time_base = tick, Fraction(1, TICKS)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return file.getvalue()

    def _shrunk(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame at the wished size, height and width even as h264 wants them."""
        small = _resized(frame, self.size)
        height, width = small.shape[0] // 2 * 2, small.shape[1] // 2 * 2
        return np.ascontiguousarray(small[:height, :width])

    def _stream(self, container: Any, height: int, width: int) -> Any:
        # More threads would change the bytes. Without B-frames the container's index has the time of every frame.
        options = {"crf": str(self.crf), "threads": "1", "tune": "fastdecode", "bf": "0"}
        stream = container.add_stream("libx264", 30, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", self.gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        return stream


@dataclass(frozen=True)
class Decoded:
    """Decodes a video for good: its frames as uint8, of which training reads a window in place.

    Attributes:
        size: Short side in pixels; smaller videos keep theirs.
        fps: Of videos with a higher mean rate those frames are kept that are nearest to an even grid, each with its own
            time.
    """

    suffix: ClassVar[str] = SUFFIX
    size: int
    fps: float

    def __call__(self, candidate: Candidate) -> bytes:
        """Return the file of frames.

        Raises:
            DataError: The video cannot be decoded from its first to its last frame, or its caption is no text.
        """
        candidate.read_caption()
        reader = open_stored(candidate.name, candidate.media)
        kept = thinned(reader.timestamps, self.fps)
        frames = [_resized(frame, self.size) for frame, keep in zip(reader.all_frames(), kept, strict=True) if keep]
        return encode_frames(reader.timestamps[kept], stack(frames, candidate.name).numpy())


def thinned(timestamps: NDArray[np.float64], fps: float) -> NDArray[np.bool_]:
    """Say which of the frames at sorted ``timestamps`` (N,) to keep, so that at most ``fps`` remain in a second."""
    span = float(np.ptp(timestamps))
    slow = len(timestamps) - 1 <= 1.01 * fps * span  # 30 counts as 29.97
    kept = np.full(len(timestamps), slow or not span)
    if not kept[0]:
        kept[nearest(timestamps, timestamps[0] + np.arange(int(span * fps) + 1) / fps)] = True
    return kept


def _resized(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a frame (H, W, 3) with a short side of ``size``, or as it is if it is smaller."""
    short = min(size, *frame.shape[:2])
    resized: NDArray[np.uint8] = resize_to_cover(torch.from_numpy(frame.copy())[None], short, short)[0].numpy()
    return resized


def prepare(
    source: str, out: Path, form: Form, samples_per_shard: int, num_workers: int, deadline: float
) -> Counter[str]:
    """Write the videos of a source as shards of small ones, and what cannot be used into ``OUT/*.bad.jsonl``.

    Args:
        source: See ``candidates.survey``; its images are passed over.
        out: Folder to write; shards that are there are complete and not made again.
        form: What becomes of each video.
        samples_per_shard: Videos of the source for each shard.
        num_workers: Processes that decode.
        deadline: Seconds after which a video is given up.

    Returns:
        How many videos are "good" and "bad".

    Raises:
        DataError: The source has no video, or ``out`` holds shards of something else.
    """
    found = list(survey(source))
    videos = [one for one in found if isinstance(one, Candidate) and one.kind == "video"]
    refused = [one for one in found if isinstance(one, Bad) and kind_of(one.name) != "image"]
    if not videos:
        raise DataError(f"{source}: holds no video that can be used; prepare is for videos alone")
    shards, counts = begin(out, videos, samples_per_shard, **vars(form)), Counter(bad=len(refused))
    _list(out / "source.bad.jsonl", refused)
    with Crew(form, num_workers, deadline) as crew, tqdm(total=len(videos), desc="preparing") as bar:
        for path, candidates in shards.items():
            listed = path.with_suffix(".bad.jsonl")
            if not path.exists():
                put(path, _items(candidates, crew, form.suffix, listed, bar), len(candidates))
            bad = len(listed.read_bytes().splitlines()) if listed.exists() else 0
            counts.update(good=len(candidates) - bad, bad=bad)
            bar.update(counts.total() - len(refused) - bar.n)
    return counts


def _items(
    candidates: Sequence[Candidate], crew: Crew[Candidate, bytes], suffix: str, listed: Path, bar: Any
) -> Iterator[Item]:
    """Yield what one shard holds; at the end, before it gets its name, list what it does not."""
    bad = []
    for candidate, outcome in zip(candidates, in_order(crew.map(candidates)), strict=True):
        bar.update()
        if isinstance(outcome, DataError):
            bad.append(Bad(candidate.name, reason(outcome, candidate.name)))
        else:
            yield Item(candidate, outcome, suffix)
    _list(listed, bad)


def _list(path: Path, bad: Sequence[Bad]) -> None:
    path.unlink(missing_ok=True)
    if bad:
        write_atomically(path, lambda file: file.writelines(json_line(vars(one)) for one in bad))
