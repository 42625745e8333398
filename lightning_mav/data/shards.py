"""Tar shards as img2dataset and video2dataset write them: their layout, read once, and random access to their bytes.

The members of a sample share a key: ``KEY.jpg`` or ``KEY.mp4``, with ``KEY.txt`` and ``KEY.json``. Nothing is ever
extracted, and what a shard from elsewhere could use to do harm is refused by name.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO

from lightning_mav.data.listing import require_regular_file
from lightning_mav.errors import DataError

BLOCK = 512  # bytes; a tar's headers and contents start at multiples of it
IN_MEMORY = 2**28  # bytes; what is larger is read in place
PICKLES = (".pkl", ".pickle", ".pyd", ".pyc", ".pth", ".pt", ".ckpt", ".joblib")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Extent:
    """Bytes within a file: a member of a tar, or the whole of a file.

    Attributes:
        file: Path of the file.
        offset: Where they begin, in bytes.
        size: How many they are.
    """

    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: The file is missing, or ends before them.
        """
        self.require()
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> BinaryIO:
        """Return a file object that sees these bytes only.

        Raises:
            DataError: The file is missing, or ends before them.
        """
        self.require()
        return io.BufferedReader(_Window(self))  # type: ignore[type-var]  # the base class has the rest

    def require(self) -> None:
        """Require the file to reach to their end.

        Raises:
            DataError: It is missing, or ends before them.
        """
        require_regular_file(self.file)
        if os.path.getsize(self.file) < self.offset + self.size:
            raise DataError(f"{self.file}: ends before byte {self.offset + self.size}; fetch it again or index it anew")


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, extent: Extent) -> None:
        self._file = open(extent.file, "rb", buffering=0)  # noqa: SIM115 - closed by close
        self._offset, self._size, self._place = extent.offset, extent.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self._file.seek(self._offset + self._place)
        view = memoryview(buffer)[: max(0, self._size - self._place)]
        num = self._file.readinto(view) or 0
        self._place += num
        return num

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name there, and where its contents lie."""

    name: str
    extent: Extent


@dataclass(frozen=True)
class Bad:
    """What was refused: its name within the source, and why in a few words."""

    name: str
    reason: str


def scan(path: str) -> tuple[list[Member], list[Bad]]:
    """Read the headers of a tar, without its contents.

    Returns:
        Its regular files in their order, and the members that are refused.

    Raises:
        DataError: Compressed, sparse, cut short, damaged, or no tar.
    """
    require_regular_file(path)
    _require_plain(path)
    members: dict[str, Member] = {}
    refused = []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.issparse():
                    raise DataError(f"{path}: sparse tar; pack it again without --sparse")
                if reason := "the second of this name" if info.name in members else _refusal(info):
                    refused.append(Bad(info.name, reason))
                elif info.isreg():
                    members[info.name] = Member(info.name, Extent(path, info.offset_data, info.size))
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DataError(f"{path}: no tar, or cut short or damaged ({error}); fetch it again") from error
    _require_end(path, end, len(members))
    return list(members.values()), refused


def _refusal(info: tarfile.TarInfo) -> str | None:
    """Return why a member is refused, or None."""
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", info.name):
        return "its path leaves the shard"
    if info.issym() or info.islnk():
        return "a link"
    if not info.isreg() and not info.isdir():
        return "a device or pipe"
    return "a pickle, which could run code" if path.suffix.lower() in PICKLES else None


def _require_plain(path: str) -> None:
    with open(path, "rb") as file:
        start = file.read(8)
    for mark, name in COMPRESSED.items():
        if start.startswith(mark):
            raise DataError(f"{path}: compressed by {name}, so it cannot be read by index; decompress it")


def _require_end(path: str, end: int, num_members: int) -> None:
    """Require the block of zeros after the last member: without it, tarfile ends in silence at damage or a cut."""
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
    if block != bytes(BLOCK):
        fault = "cut short" if len(block) < BLOCK else "damaged"
        raise DataError(f"{path}: {fault} at byte {end}, after {num_members} members; fetch it again")


def write_shard(file: IO[bytes], members: Iterable[tuple[str, Extent | bytes]]) -> None:
    """Write a tar whose bytes depend on names and contents alone.

    Args:
        file: Where to.
        members: Name and contents of each file.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            with contents.open() if isinstance(contents, Extent) else io.BytesIO(contents) as source:
                info.size = contents.size if isinstance(contents, Extent) else len(contents)
                tar.addfile(info, source)
