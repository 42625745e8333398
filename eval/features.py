"""Features of one set of videos, stored in fixed chunks: a JSONL manifest and a safetensors shard for each.

A chunk's manifest is written last and marks it as done, so that a run killed at any moment goes on with the next chunk.
What a chunk holds depends on its own videos alone, never on the order of work or the number of processes.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from eval.store import write_text
from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.errors import DataError

POLL = 1.0  # seconds between looks for chunks that other processes make
logger = logging.getLogger(__name__)

Row = dict[str, Any]
Work = Callable[[Sequence[int], Path], tuple[list[Row], dict[str, Tensor]]]


@dataclass(frozen=True)
class Features:
    """What was extracted from a set of videos.

    Attributes:
        rows: One per video, in the order of the set; each has an "id", and an "error" where the video was skipped.
        tensors: Name -> (N, k, D): N readable videos, k vectors of each.
        folder: Where they are stored.
    """

    rows: list[Row]
    tensors: dict[str, Tensor]
    folder: Path

    @property
    def kept(self) -> list[Row]:
        """The rows of readable videos, as many as the tensors have."""
        return [row for row in self.rows if "error" not in row]


@dataclass(frozen=True)
class FeatureStore:
    """Chunks of ``chunk`` videos under ``folder``, shared among processes.

    Attributes:
        folder: Where.
        chunk: Videos in each.
        rank: Number of this process; it makes every ``world_size``-th chunk.
        world_size: Number of processes that work on the same folder.
    """

    folder: Path
    chunk: int
    rank: int = 0
    world_size: int = 1

    def extract(self, name: str, key: Any, ids: Sequence[str], work: Work) -> Features:
        """Return the features of videos 0..N-1, making only the chunks that are not stored yet.

        Args:
            name: Name of the set.
            key: Everything the features depend on, as plain values; another key is another set.
            ids: Their names, for the manifest and to catch a set that has changed.
            work: Gets numbers of videos and a folder for files; returns a row for each, and per name (B, k, D) features
                of those without an error.

        Raises:
            DataError: A stored chunk names other videos.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.folder / f"{name}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        chunks = [range(start, min(start + self.chunk, len(ids))) for start in range(0, len(ids), self.chunk)]
        for chunk in chunks[self.rank :: self.world_size]:
            if not _manifest(folder, chunk).exists():
                _make(folder, chunk, digest, work)
                logger.info("%s: %d of %d videos", name, chunk.stop, len(ids))
        return _joined([_wait_for(folder, chunk, digest, ids) for chunk in chunks])


def _make(folder: Path, chunk: range, digest: str, work: Work) -> None:
    rows, tensors = work(chunk, folder)
    contents = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    shard = _shard(folder, chunk)
    write_atomically(shard, lambda file: file.write(save(contents)))
    lines = (json.dumps(row | {"shard": shard.name, "key": digest}, ensure_ascii=False) for row in rows)
    write_text("".join(f"{line}\n" for line in lines), _manifest(folder, chunk))


def _wait_for(folder: Path, chunk: range, digest: str, ids: Sequence[str]) -> Features:
    """Return a chunk's features once its manifest is there."""
    manifest = _manifest(folder, chunk)
    while not manifest.exists():
        time.sleep(POLL)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    if [row["id"] for row in rows] != [ids[i] for i in chunk]:
        raise DataError(f"{manifest}: names other videos than the set has now; remove {folder}")
    if any(row["key"] != digest for row in rows):
        raise DataError(f"{manifest}: comes from another extractor, system or protocol; never mix them, remove it")
    return Features(rows, load_file(_shard(folder, chunk)), folder)


def _joined(parts: Sequence[Features]) -> Features:
    names: Mapping[str, Tensor] = parts[0].tensors
    rows = [row for part in parts for row in part.rows]
    return Features(rows, {name: torch.cat([part.tensors[name] for part in parts]) for name in names}, parts[0].folder)


def _stem(chunk: range) -> str:
    return f"{chunk.start:06d}-{chunk.stop:06d}"


def _manifest(folder: Path, chunk: range) -> Path:
    return folder / f"{_stem(chunk)}.jsonl"


def _shard(folder: Path, chunk: range) -> Path:
    return folder / f"{_stem(chunk)}.safetensors"
