"""The marker beside a checkpoint, ``step=000040.ckpt.sha256``: what its bytes must be, in the form of ``sha256sum``.

A file never has its final name before its marker lies there; a folder, whose files several processes write, is finished
when its marker lies there. So a checkpoint counts if it has one, and is whole if the bytes agree.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from lightning_mav.errors import CheckpointError

MARKER = ".sha256"
PIECE = 2**22  # bytes hashed at a time


class Hashing:
    """A file to write to whose sha256 is known when all is written.

    Args:
        file: Where the bytes go.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes."""
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand what is written to the system."""
        self._file.flush()

    def hexdigest(self) -> str:
        """Return the sha256 of what has been written."""
        return self._digest.hexdigest()


def marker_of(checkpoint: Path) -> Path:
    """Return where the marker of a checkpoint lies."""
    return checkpoint.with_name(checkpoint.name + MARKER)


def marker_lines(digests: dict[str, str]) -> bytes:
    """Return the contents of a marker: for each file, by its path from the checkpoint's folder, its sha256."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def digests_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a checkpoint that is a folder, for ``marker_lines``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.parent)): sha256_of(path) for path in files}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hexdigest(file)


def hexdigest(file: IO[bytes]) -> str:
    """Return the sha256 of what is left to read in an opened file, in hexadecimal."""
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def verify(checkpoint: Path) -> None:
    """Compare a checkpoint with its marker; one without a marker, as when a single file was copied, passes.

    Raises:
        CheckpointError: Its bytes are not those that were written.
    """
    checkpoint = checkpoint.resolve()  # last.ckpt is a link
    marker = marker_of(checkpoint)
    if not marker.is_file():
        return
    for line in marker.read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if _known_sha256(checkpoint.parent / name) != digest:
            raise CheckpointError(
                f"{checkpoint.parent / name}: damaged, its sha256 is not the one in {marker.name};"
                " remove it and take an earlier checkpoint, as fit does by itself"
            )


def _known_sha256(path: Path) -> str | None:
    """Return the sha256 of a file, None of what cannot be read as one; the same file is read once."""
    try:
        facts = os.stat(path)
        return _sha256_by_facts(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _sha256_by_facts(path: Path, size: int, modified: int, inode: int) -> str:
    return sha256_of(path)
