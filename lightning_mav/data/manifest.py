"""The index of a source: one line of JSON per sample, read by number without holding the others in memory.

The first line says how many samples follow. A line names the file and the bytes of a sample's image or video, their
sha256, what decoding them gave, and the caption. Paths are relative to the manifest where the data lies below it.
"""

import hashlib
import io
import json
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_mav.data.listing import Split, in_split, name_hash, require_regular_file
from lightning_mav.data.opened import descriptor
from lightning_mav.data.shards import IN_MEMORY, Extent
from lightning_mav.errors import DataError

MANIFEST = "manifest.jsonl"  # the name that is looked for in a folder
VERSION = 1
LINE = 1024  # bytes that are read at once; most lines are shorter

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Sample:
    """An image or a video, its facts as found by decoding it, and its caption.

    Attributes:
        name: Its name within the source, which decides its split.
        kind: "image" or "video".
        media: Where its bytes lie.
        sha256: Of these bytes, in hexadecimal.
        width: In pixels, upright.
        height: In pixels, upright.
        caption: None where there is none.
        frames: Of a video.
        fps: Mean rate of a video by its timestamps, in frames per second; None for a single frame.
        duration: Of a video, in seconds; None for a single frame.
    """

    name: str
    kind: Kind
    media: Extent
    sha256: str
    width: int
    height: int
    caption: str | None = None
    frames: int | None = None
    fps: float | None = None
    duration: float | None = None

    def row(self, folder: Path) -> dict[str, Any]:
        """Return what a manifest in ``folder`` holds of this sample."""
        row = {key: value for key, value in vars(self).items() if value is not None}
        media: Extent = row.pop("media")
        return row | {"file": _from(folder, media.file), "offset": media.offset, "size": media.size}

    @classmethod
    def from_row(cls, row: dict[str, Any], folder: str) -> "Sample":
        """Return the sample that a row of a manifest in ``folder`` describes."""
        media = Extent(os.path.join(folder, row.pop("file")), row.pop("offset"), row.pop("size"))
        return cls(media=media, **row)

    def read(self) -> bytes:
        """Return the bytes of the image or video.

        Raises:
            DataError: They are not those that were indexed.
        """
        data = self.media.read()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(
                f"{self.name}: its bytes in {self.media.file} have changed; fetch it again or index it anew"
            )
        return data

    def opener(self) -> Callable[[], BinaryIO]:
        """Return what opens the bytes as a file: in memory, compared with the index, or in place where they are many.

        The sha256 of a video that is read in place is compared by ``data check`` alone.

        Raises:
            DataError: They are not those that were indexed.
        """
        return self.media.open if self.media.size > IN_MEMORY else partial(io.BytesIO, self.read())


def _from(folder: Path, file: str) -> str:
    """Return the path of ``file`` from ``folder``, absolute where it lies elsewhere."""
    path = os.path.abspath(file)
    relative = os.path.relpath(path, os.path.abspath(folder))
    return path if relative.startswith(os.pardir) else relative


@dataclass(frozen=True)
class Samples:
    """Samples of a manifest by number. It pickles small: 8 bytes for each sample, whatever its caption.

    Attributes:
        manifest: Path of the manifest.
        offsets: int64 (N,), where their lines begin, in bytes.
    """

    manifest: str
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Sample:
        line = self._line(int(self.offsets[index]))
        try:
            return Sample.from_row(json.loads(line), os.path.dirname(self.manifest))
        except (ValueError, TypeError, KeyError) as error:
            raise _wrong(self.manifest, f"the line at byte {self.offsets[index]} is wrong") from error

    def _line(self, offset: int) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.pread(descriptor(self.manifest), LINE, offset + len(line))
            line += piece[: piece.find(b"\n") + 1] or piece
            if not piece:
                break
        return line

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def manifest_of(source: str) -> str | None:
    """Return the manifest that ``source`` is, or that lies in the folder ``source``; None if there is none."""
    path = Path(source) / MANIFEST if Path(source).is_dir() else Path(source)
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as file:
        head = _head(file.readline(1000))
    if head is None:
        return None
    if head["manifest"] != VERSION:
        raise DataError(f"{path}: a manifest of version {head['manifest']}, not {VERSION}; run data index again")
    return str(path)


def read_manifest(manifest: str, kind: Kind | None = None, split: Split | None = None) -> Samples:
    """Open a manifest.

    Args:
        manifest: Path, from ``manifest_of``.
        kind: Only images, or only videos.
        split: Only this part of them, as ``listing.list_files`` divides a source.

    Raises:
        DataError: A line is wrong, lines are missing, or no sample is of this kind.
    """
    require_regular_file(manifest)
    offsets, hashes = _lines(manifest, kind, os.stat(manifest).st_mtime_ns)
    if not len(offsets):
        raise DataError(f"{manifest}: holds no {kind or 'sample'}; index a source that has some")
    return Samples(manifest, offsets if split is None else offsets[in_split(hashes, split)])


@lru_cache(maxsize=4)  # training opens both splits
def _lines(manifest: str, kind: Kind | None, written: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the lines of a kind begin and the hashes of their names, (N,) each."""
    offsets, hashes, num = array("q"), array("q"), 0
    with open(manifest, "rb") as file:
        head = _head(file.readline())
        offset = file.tell()
        for num, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if kind in (None, row["kind"]):
                    offsets.append(offset)
                    hashes.append(name_hash(row["name"]))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _wrong(manifest, f"line {num + 1} is wrong") from error
            offset += len(line)
    if head is None or num != head["samples"]:
        raise _wrong(manifest, f"holds {num} samples, but not as many were indexed")
    return np.array(offsets), np.array(hashes)


def head_line(num_samples: int) -> bytes:
    """Return the first line of a manifest."""
    return json_line({"manifest": VERSION, "samples": num_samples})


def json_line(row: dict[str, Any]) -> bytes:
    """Return a row as one line, in ASCII, so that names and captions of any kind come back as they were."""
    return json.dumps(row).encode("ascii") + b"\n"


def _head(line: bytes) -> dict[str, Any] | None:
    try:
        head = json.loads(line)
    except ValueError:
        return None
    return head if isinstance(head, dict) and {"manifest", "samples"} <= head.keys() else None


def _wrong(manifest: str, fault: str) -> DataError:
    return DataError(f"{manifest}: {fault}; copy it again or run data index anew")
