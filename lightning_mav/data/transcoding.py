"""Making videos small and quick to read: a short side of a few hundred pixels, key frames close together, in shards."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.candidates import Candidate, candidates_of, reason
from lightning_mav.data.crew import Crew
from lightning_mav.data.manifest import json_line
from lightning_mav.data.packing import Item, begin, put
from lightning_mav.data.readers import open_video
from lightning_mav.data.shards import Bad
from lightning_mav.data.transforms import resize_short_side
from lightning_mav.errors import DataError

TICKS = 90_000  # per second: times keep to a hundredth of a millisecond


@dataclass(frozen=True)
class Transcoder:
    """Encodes a video anew as h264 in mp4, upright, without sound, each frame at its own time.

    Attributes:
        size: Short side in pixels; smaller videos keep theirs.
        gop: Frames from one key frame to the next.
        crf: Quality, 0 lossless, 23 the encoder's default.
    """

    size: int
    gop: int
    crf: int

    def __call__(self, candidate: Candidate) -> bytes:
        """Return the mp4 file; its bytes depend on the video and the settings alone.

        Raises:
            DataError: The video cannot be decoded from its first to its last frame.
        """
        reader = open_video(candidate.name, candidate.media.open)
        height, width = self._shrunk(reader.frames(np.arange(1))[0].numpy()).shape[:2]
        ticks = np.round((reader.timestamps - reader.timestamps[0]) * TICKS).astype(int).tolist()
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = self._stream(container, height, width)
            for tick, frame in zip(ticks, reader.all_frames(), strict=True):
                picture = av.VideoFrame.from_ndarray(self._shrunk(frame), format="rgb24")
                picture.pts, picture.time_base = tick, Fraction(1, TICKS)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return file.getvalue()

    def _shrunk(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame at the wished size, height and width even as h264 wants them."""
        height, width = frame.shape[:2]
        small = resize_short_side(torch.from_numpy(frame.copy())[None], min(self.size, height, width))[0]
        height, width = small.shape[0] // 2 * 2, small.shape[1] // 2 * 2
        return small[:height, :width].contiguous().numpy()

    def _stream(self, container: Any, height: int, width: int) -> Any:
        options = {"crf": str(self.crf), "threads": "1"}  # more of them would change the bytes
        stream = container.add_stream("libx264", 30, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", self.gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        return stream


def prepare(
    source: str, out: Path, transcoder: Transcoder, samples_per_shard: int, num_workers: int, deadline: float
) -> Counter[str]:
    """Write the videos of a source as shards of small ones, and ``OUT/NUMBER.bad.jsonl`` with those that cannot be.

    Args:
        source: See ``candidates.candidates_of``; its images are passed over.
        out: Folder to write; shards that are there are complete and not made again.
        transcoder: How each video is encoded.
        samples_per_shard: Videos of the source for each shard; as many are held in memory.
        num_workers: Processes that encode.
        deadline: Seconds after which the encoding of one video is given up.

    Returns:
        How many videos are "good" and "bad".

    Raises:
        DataError: The source has no video, or ``out`` holds shards of something else.
    """
    videos = [candidate for candidate in candidates_of(source) if candidate.kind == "video"]
    if not videos:
        raise DataError(f"{source}: holds no video; prepare is for videos alone")
    shards, counts = begin(out, videos, samples_per_shard, **vars(transcoder)), Counter[str]()
    with Crew(transcoder, num_workers, deadline) as crew, tqdm(total=len(videos), desc="encoding") as bar:
        for path, candidates in shards.items():
            listed = path.with_suffix(".bad.jsonl")
            if not path.exists():
                _fill(path, listed, candidates, crew, bar)
            bad = len(listed.read_bytes().splitlines()) if listed.exists() else 0
            counts.update(good=len(candidates) - bad, bad=bad)
            bar.update(sum(counts.values()) - bar.n)
    return counts


def _fill(path: Path, listed: Path, candidates: Sequence[Candidate], crew: Crew[Candidate, bytes], bar: Any) -> None:
    """Write one shard, after the list of what is not in it."""
    outcomes: dict[int, bytes | DataError] = {}
    for number, outcome in crew.map(candidates):
        outcomes[number] = outcome
        bar.update()
    made = [(candidate, outcomes[number]) for number, candidate in enumerate(candidates)]
    bad = [Bad(c.name, reason(outcome, c.name)) for c, outcome in made if isinstance(outcome, DataError)]
    listed.unlink(missing_ok=True)
    if bad:
        write_atomically(listed, lambda file: file.writelines(json_line(vars(one)) for one in bad))
    put(path, [Item(c, contents, ".mp4") for c, contents in made if isinstance(contents, bytes)])
