"""Small file systems, which can be full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount an empty file system of ``size`` bytes on a new folder."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def grow(folder: Path, size: int) -> None:
    """Give a mounted file system another size, as one who makes room."""
    _mount("-o", f"remount,size={size}", folder)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)
