"""Work in fixed chunks, each stored whole or not at all, so that a killed evaluation continues where it stopped."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning_mav.checkpoint.io import write_atomically

Row = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """What a piece of work found.

    Attributes:
        rows: One plain dictionary per video, in the order of their ids.
        seconds: Wall time of the work when it was done.
        folder: Where its files lie.
    """

    rows: list[Row]
    seconds: float
    folder: Path

    def mean(self, name: str) -> float:
        """Return the mean of one column."""
        return math.fsum(row[name] for row in self.rows) / len(self.rows)


@dataclass(frozen=True)
class Store:
    """Stored chunks under ``folder``, ``chunk`` videos in each."""

    folder: Path
    chunk: int

    def rows(self, name: str, key: Any, num: int, work: Callable[[Sequence[int], Path], list[Row]]) -> Rows:
        """Return the rows of videos 0..num-1, doing only the chunks that are not stored yet.

        Args:
            name: Name of the piece of work.
            key: Everything its results depend on, as plain values; another key is other work.
            num: Number of videos.
            work: Gets ids of videos and a folder for files, returns a row for each; only ids decide its chance.
        """
        folder = self.folder / f"{name}-{digest(key)}"
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = []
        seconds = 0.0
        for start in range(0, num, self.chunk):
            stored = _stored(folder, range(start, min(start + self.chunk, num)), work)
            rows += stored["rows"]
            seconds += stored["seconds"]
            logger.info("%s: %d of %d videos", name, len(rows), num)
        return Rows(rows, seconds, folder)


def _stored(folder: Path, ids: range, work: Callable[[Sequence[int], Path], list[Row]]) -> dict[str, Any]:
    """Return one chunk's rows and seconds, from its file if there is one."""
    path = folder / f"{ids.start:06d}-{ids.stop:06d}.json"
    if not path.exists():
        began = perf_counter()
        rows = work(ids, folder)
        write_json({"seconds": perf_counter() - began, "rows": rows}, path)
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def digest(key: Any) -> str:
    """Return 12 hexadecimal digits that stand for plain values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def write_json(content: Any, path: Path) -> None:
    """Write plain values as json, whole or not at all."""
    write_text(json.dumps(content, indent=1), path)


def write_text(content: str, path: Path) -> None:
    """Write text, whole or not at all."""
    write_atomically(path, lambda file: file.write(content.encode()))
