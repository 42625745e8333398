"""Bad samples in a long run: each is listed, and another is read in its place as long as they are few."""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lightning_mav.data.buckets import Buckets
from lightning_mav.data.listing import Split
from lightning_mav.data.manifest import json_line
from lightning_mav.errors import DataError
from lightning_mav.seeding import hashed_seed

LIST = "bad_samples.jsonl"  # in the run folder


@dataclass(frozen=True)
class BadSamples:
    """The bad samples of one split of a run, in a file to which all its processes append.

    Attributes:
        path: A line of JSON for each: split, name, reason, index, and the position at which it was met.
        split: Which lines count.
    """

    path: Path
    split: Split

    def add(self, index: int, position: int, error: DataError) -> int:
        """Write a sample down unless it is there, and return how many distinct ones there are now."""
        known = self._known()
        if index not in known:
            name, _, reason = str(error).partition(": ")
            row = {"split": self.split, "name": name, "reason": reason, "index": index, "position": position}
            with self.path.open("ab", buffering=0) as file:
                file.write(json_line(row))  # one write, so that lines of other processes stay whole
        return len(known | {index})

    def _known(self) -> set[int]:
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        rows = [row for row in map(_row, lines) if row is not None]
        return {row["index"] for row in rows if row["split"] == self.split}


def _row(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if a full disk cut it, as its sample will be met again."""
    try:
        row: dict[str, Any] = json.loads(line)
        return row if {"split", "index"} <= row.keys() else None
    except (ValueError, AttributeError):
        return None


class SkippingDataset(Dataset[dict[str, Any]]):
    """A data set in which a bad sample is replaced by another of its bucket, a function of (seed, index, position).

    So workers, ranks and restarts change nothing. The replacement carries its own index, by which its noise is drawn.

    Args:
        dataset: Read by (index, position) pairs; raises DataError where a sample is bad.
        num: Its first so many samples are read, and replace each other.
        seed: Of the replacements.
        bad: Where bad samples are listed.
        budget: So many distinct samples may be bad over the whole run, restarts included.
    """

    def __init__(self, dataset: Any, num: int, seed: int, bad: BadSamples, budget: int) -> None:
        self.dataset, self.num, self.seed, self.bad, self.budget = dataset, num, seed, bad, budget

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        for attempt in count():
            try:
                sample: dict[str, Any] = self.dataset[index, position]
                return sample
            except DataError as error:
                self._skip(index, position, error)
            index = self._another(key, attempt)
        raise AssertionError("a good sample is found or there is an error")

    @property
    def buckets(self) -> Buckets | None:
        """Those of the data set."""
        return getattr(self.dataset, "buckets", None)

    def _another(self, key: tuple[int, int], attempt: int) -> int:
        """Return the sample to try next.

        Raises:
            DataError: So many were tried that none in the bucket can be good.
        """
        place = hashed_seed("replacement", self.seed, *key, attempt)
        if not self.buckets:
            return place % self.num
        alike = np.flatnonzero(self.buckets.number[: self.num] == self.buckets.number[key[0]])
        if attempt > 20 * len(alike):
            raise DataError(f"{self.bad.path}: lists all samples of a bucket; mend them or choose other data.buckets")
        return int(alike[place % len(alike)])

    def _skip(self, index: int, position: int, error: DataError) -> None:
        """List a bad sample.

        Raises:
            DataError: They are more than the budget, or all there are.
        """
        num = self.bad.add(index, position, error)
        if num > min(self.budget, self.num - 1):
            raise DataError(
                f"{self.bad.path}: {num} of {self.num} {self.bad.split} samples are bad, and data.skip_budget is"
                f" {self.budget}; mend or remove them or raise it; the last is {error}"
            ) from error
