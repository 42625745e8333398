"""Reading at places of files that stay open, as opening a file takes longer than reading a few frames of it."""

import io
import os
from functools import lru_cache

from lightning_mav.data.listing import require_regular_file
from lightning_mav.errors import DataError


def descriptor(path: str) -> int:
    """Return a descriptor of an opened file, for ``os.pread``: it keeps no place, so that forked workers can share it.

    Raises:
        DataError: Nothing is there, or no regular file.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; correct the list or the link") from error
    return _opened(path, status.st_ino, status.st_mtime_ns).fileno()


@lru_cache(maxsize=256)
def _opened(path: str, inode: int, written: int) -> io.FileIO:
    """Open a file; one that was replaced meanwhile is another."""
    require_regular_file(path)
    return io.FileIO(path)
