"""Looking into one image or video: its bytes are hashed and all of it is decoded once, as training would."""

import io
from typing import Any

import numpy as np

from lightning_mav.checkpoint.digest import hexdigest
from lightning_mav.data.candidates import Candidate
from lightning_mav.data.images import decode_image
from lightning_mav.data.manifest import Sample
from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.readers import FileReader, open_with_pyav
from lightning_mav.data.shards import Extent
from lightning_mav.data.windows import is_windows, open_stored
from lightning_mav.errors import DataError


def examine(candidate: Candidate) -> Sample:
    """Return the facts of a candidate.

    Raises:
        DataError: It cannot be decoded from its first to its last frame, or its caption is no text.
    """
    facts = _image(candidate) if candidate.kind == "image" else _video(candidate)
    caption, sha256 = candidate.read_caption(), sha256_of(candidate.media)
    return Sample(candidate.name, candidate.kind, candidate.media, sha256, caption=caption, **facts)


def examine_again(sample: Sample) -> Sample:
    """Compare a sample with what is there now.

    Raises:
        DataError: Its bytes have changed, or decode to something else than they did.
    """
    if sha256_of(sample.media) != sample.sha256:
        raise DataError(f"{sample.name}: its bytes have changed; fetch it again or run data index anew")
    found = examine(Candidate(sample.name, sample.kind, sample.media, caption=sample.caption))
    for fact in ("width", "height", "frames", "fps", "duration"):
        if getattr(found, fact) != getattr(sample, fact):
            raise DataError(
                f"{sample.name}: {fact} is {getattr(found, fact)}, but {getattr(sample, fact)} in the manifest;"
                " run data index anew"
            )
    return found


def sha256_of(extent: Extent) -> str:
    """Return the sha256 of bytes in a file, in hexadecimal."""
    with extent.open() as file:
        return hexdigest(file)


def _image(candidate: Candidate) -> dict[str, Any]:
    height, width, _ = decode_image(io.BytesIO(candidate.media.read()), candidate.name).shape
    return {"width": width, "height": height}


def _video(candidate: Candidate) -> dict[str, Any]:
    reader, (height, width, _) = _decoded(candidate)
    num, span = len(reader.timestamps), float(np.ptp(reader.timestamps))
    rate = {"fps": round((num - 1) / span, 3), "duration": round(span * num / (num - 1), 3)} if span else {}
    return {"width": width, "height": height, "frames": num, **rate}


def _decoded(candidate: Candidate) -> tuple[FileReader, tuple[int, ...]]:
    """Decode all of a video as training does, but first with PyAV; return the reader and the shape of a frame.

    PyAV finds damage that decord covers with a picture it makes up, or crashes on.
    """
    name, opener = candidate.name, candidate.media.open
    if is_windows(name):
        windows = open_stored(name, candidate.media)
        return windows, _shape(windows)
    sound = open_with_pyav(name, opener)
    shape, reader = _shape(sound), open_stored(name, candidate.media)
    if len(sound.timestamps) != len(reader.timestamps):
        raise DataError(
            f"{name}: {len(sound.timestamps)} frames by one reader and {len(reader.timestamps)} by another;"
            " encode it again"
        )
    return reader, shape if isinstance(reader, PyAVReader) else _shape(reader)


def _shape(reader: FileReader) -> tuple[int, ...]:
    """Decode a video from its first to its last frame and return the shape of each."""
    shape, *others = {frame.shape for frame in reader.all_frames()}
    if others:
        raise DataError(f"{reader.name}: its frames change size; encode it again at one size")
    return shape
