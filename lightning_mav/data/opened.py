"""Reading at places of files that stay open, as opening a file takes longer than reading a few frames of it."""

import io
import math
import mmap
import os
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from lightning_mav.data.listing import require_regular_file
from lightning_mav.errors import DataError


def descriptor(path: str) -> int:
    """Return a descriptor of an opened file, for ``os.pread``: it keeps no place, so that forked workers can share it.

    Raises:
        DataError: Nothing is there, or no regular file.
    """
    return _opened(path, *_version(path)).fileno()


def rows(path: str, offset: int, shape: tuple[int, ...], indices: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Read some of the equal parts of which an array in a file consists.

    A worker copies them out of the mapped file, several times faster than by a call for each. Should the file be cut or
    its disk fail at that moment, the system ends the process: of a worker that is reported, with the samples it read.
    The process that trains is not risked.

    Args:
        path: The file.
        offset: Where the array begins, in bytes.
        shape: Of the array (N, ...), of bytes.
        indices: (n,) of the parts.

    Returns:
        (n, ...); None where the file ends too early.
    """
    if get_worker_info():
        with suppress(OSError, ValueError):  # what a file system says that cannot map
            return _mapped_rows(path, offset, shape, indices)
    return _read_rows(path, offset, shape, indices)


def _mapped_rows(
    path: str, offset: int, shape: tuple[int, ...], indices: NDArray[np.int64]
) -> NDArray[np.uint8] | None:
    size = math.prod(shape)
    data = _mapped(path, *_version(path))[offset : offset + size]
    return data.reshape(shape).take(indices, 0) if len(data) == size else None


def _read_rows(path: str, offset: int, shape: tuple[int, ...], indices: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    read, file = np.empty((len(indices), *shape[1:]), np.uint8), descriptor(path)
    for row, index in zip(read, indices.tolist(), strict=True):
        if os.preadv(file, [row.data], offset + index * row.nbytes) != row.nbytes:
            return None
    return read


def _version(path: str) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written to."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; correct the list or the link") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _opened(path: str, *version: int) -> io.FileIO:
    """Open a file; one that was replaced meanwhile is another."""
    require_regular_file(path)
    return io.FileIO(path)


@lru_cache(maxsize=128)
def _mapped(path: str, *version: int) -> NDArray[np.uint8]:
    """Map a file into memory; one that was written to meanwhile is another, of its new size."""
    require_regular_file(path)
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
