"""Features of videos, stored by look: a JSONL manifest and a safetensors shard for each piece of work.

A look is what one network sees of a set of videos. A manifest is written last and marks its piece as done, so that a
run killed at any moment goes on with the next one. What is stored of a video depends on that video alone, never on the
order of work or the number of processes; another list of prompts, a sub-sample or one network more takes what is there.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from eval.store import digest, write_text
from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.errors import DataError

POLL = 1.0  # seconds between looks for what other processes make
FEATURES = "features"
logger = logging.getLogger(__name__)

Row = dict[str, Any]
Work = Callable[[Sequence[int], Sequence[str], Path], tuple[list[Row], dict[str, Tensor]]]


@dataclass(frozen=True)
class Features:
    """What was extracted from a set of videos.

    Attributes:
        rows: One per video, in the order of the set; each has an "error" where the video was skipped.
        tensors: Look -> (N, k, D): N readable videos, k vectors of each.
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
    """Features under ``folder``, made ``chunk`` videos at a time and shared among processes.

    Attributes:
        folder: Where.
        chunk: Videos in each piece of work.
        rank: Number of this process; it makes every ``world_size``-th chunk.
        world_size: Number of processes that work on the same folder.
    """

    folder: Path
    chunk: int
    rank: int = 0
    world_size: int = 1

    def extract(self, name: str, key: Any, looks: Mapping[str, str], ids: Sequence[str], work: Work) -> Features:
        """Return the features of videos, making only those that are not stored yet.

        Args:
            name: Name of the set.
            key: Everything the videos depend on beside their ids, as plain values; another key is another set.
            looks: Look -> fingerprint of its network; another fingerprint is another look.
            ids: What tells the videos apart.
            work: Gets places in ``ids``, the looks wanted of them and a folder for files; returns a row for each video,
                and for each look (B, k, D) features of those without an error.

        Raises:
            DataError: What is stored comes from elsewhere.
        """
        folder = self.folder / f"{name}-{digest(key)}"
        shelves = {look: _Shelf.open(folder, look, mark) for look, mark in looks.items()}
        chunks = [range(start, min(start + self.chunk, len(ids))) for start in range(0, len(ids), self.chunk)]
        for chunk in chunks[self.rank :: self.world_size]:
            for wanted, places in _lacking(shelves, ids, chunk).items():
                rows, tensors = work(places, wanted, folder)
                for look in wanted:
                    shelves[look].put([ids[i] for i in places], rows, tensors[look])
                logger.info("%s: %d of %d videos", name, chunk.stop, len(ids))
        for shelf in shelves.values():
            shelf.wait_for(ids)
        return _joined(shelves, ids, folder)


@dataclass
class _Shelf:
    """What is stored of one look: its pieces' rows and features, by video."""

    folder: Path
    mark: str
    found: dict[str, tuple[Row, Tensor | None]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, folder: Path, look: str, fingerprint: str) -> "_Shelf":
        shelf = cls(folder / f"{look.replace('/', '-')}-{digest(fingerprint)}", digest([look, fingerprint]))
        shelf.folder.mkdir(parents=True, exist_ok=True)
        shelf.refresh()
        return shelf

    def put(self, ids: Sequence[str], rows: Sequence[Row], features: Tensor) -> None:
        piece = digest(ids)
        contents = {FEATURES: features.contiguous().cpu()}
        write_atomically(self._shard(piece), lambda file: file.write(save(contents)))
        about = {"shard": self._shard(piece).name, "key": self.mark}
        lines = (json.dumps({"video": i} | row | about, ensure_ascii=False) for i, row in zip(ids, rows, strict=True))
        write_text("".join(f"{line}\n" for line in lines), self.folder / f"{piece}.jsonl")

    def wait_for(self, ids: Sequence[str]) -> None:
        """Read on until every video is there, made by this process or another."""
        self.refresh()
        while any(i not in self.found for i in ids):
            time.sleep(POLL)
            self.refresh()

    def refresh(self) -> None:
        for manifest in sorted(self.folder.glob("*.jsonl")):
            if manifest.name not in self.read:
                self.found |= self._piece(manifest)
                self.read.add(manifest.name)

    def _piece(self, manifest: Path) -> dict[str, tuple[Row, Tensor | None]]:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        if any(row["key"] != self.mark for row in rows):
            raise DataError(f"{manifest}: comes from another extractor, system or protocol; never mix them, remove it")
        features = iter(load_file(self._shard(manifest.stem))[FEATURES])
        return {row["video"]: (row, None if "error" in row else next(features)) for row in rows}

    def _shard(self, piece: str) -> Path:
        return self.folder / f"{piece}.safetensors"


def _lacking(shelves: Mapping[str, _Shelf], ids: Sequence[str], chunk: range) -> dict[tuple[str, ...], list[int]]:
    """Return which looks are wanted of which videos, together where the same are."""
    wanted: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in chunk:
        if looks := tuple(look for look, shelf in shelves.items() if ids[i] not in shelf.found):
            wanted[looks].append(i)
    return wanted


def _joined(shelves: Mapping[str, _Shelf], ids: Sequence[str], folder: Path) -> Features:
    rows = [_row([shelf.found[i][0] for shelf in shelves.values()]) for i in ids]
    kept = [i for i, row in zip(ids, rows, strict=True) if "error" not in row]
    return Features(rows, {look: _stacked(shelf, kept) for look, shelf in shelves.items()}, folder)


def _row(rows: Sequence[Row]) -> Row:
    """Return what is known of a video: the error if any look has one."""
    chosen = next((row for row in rows if "error" in row), rows[0])
    return {name: value for name, value in chosen.items() if name not in ("shard", "key")}


def _stacked(shelf: _Shelf, ids: Sequence[str]) -> Tensor:
    tensors = [tensor for i in ids if (tensor := shelf.found[i][1]) is not None]
    return torch.stack(tensors) if tensors else torch.zeros(0, 1, 1)
