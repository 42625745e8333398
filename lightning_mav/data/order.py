"""The order of a run: a function of (seed, epoch), so a position alone says which sample comes next.

``position`` counts the samples a run has consumed. Each batch is a list of (index, position) pairs; the data sets key
their random draws by that pair, so workers, ranks and restarts change nothing.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from lightning_mav.seeding import generator, hashed_seed


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> torch.Tensor:
    """Return the order of the ``n`` samples in ``epoch``, int64 (n,)."""
    return torch.randperm(n, generator=generator("order", seed, epoch))


def index_at(seed: int, position: int, n: int) -> int:
    """Return the index of the sample at ``position`` of an endless run over ``n`` samples."""
    epoch, place = divmod(position, n)
    return int(permutation(seed, epoch, n)[place])


class EndlessBatches(Sampler[list[tuple[int, int]]]):
    """Endless training batches of (index, position); they cross the ends of epochs, so no sample is ever dropped.

    Args:
        n: samples in the data set.
        batch_size: samples per rank and batch.
        seed: seed of the order.
        start: position of the first sample, that is, samples consumed by all ranks so far.
        rank: this process; it takes its slice of each global batch of ``batch_size * world_size`` positions.
        world_size: number of processes.
    """

    def __init__(self, n: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        assert n > 0 and batch_size > 0 and 0 <= rank < world_size
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.first = start + rank * batch_size
        self.stride = batch_size * world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.first
        while True:
            positions = range(first, first + self.batch_size)
            yield [(index_at(self.seed, position, self.n), position) for position in positions]
            first += self.stride


class BucketBatches(Sampler[list[tuple[int, int]]]):
    """Endless training batches of (index, position), all samples of a global batch from one bucket.

    In an epoch each bucket has as many global batches as hold its samples, and the order of all batches is drawn. A
    bucket's own order is endless, so where its samples do not fill its last batch of an epoch, its next epoch begins.

    Args:
        buckets: (N,) number of each sample's bucket.
        batch_size: see ``EndlessBatches``, as for the others.
        seed: seed of the order.
        start: position of the first sample.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self, buckets: NDArray[np.int64], batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batch_size, self.seed, self.stride, self.rank = batch_size, seed, batch_size * world_size, rank
        self.start = start // self.stride
        self.members = [np.flatnonzero(buckets == number) for number in np.unique(buckets)]
        self.ends = np.cumsum([-(-len(members) // self.stride) for members in self.members])  # in batches of an epoch
        self.permutation = lru_cache(maxsize=2 * len(self.members) + 2)(permutation.__wrapped__)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in count(self.start):
            bucket, turn = self._turn(number)
            first = self.rank * self.batch_size
            places = range(first, first + self.batch_size)
            yield [(self._member(bucket, turn * self.stride + i), number * self.stride + i) for i in places]

    def _turn(self, number: int) -> tuple[int, int]:
        """Return the bucket of a global batch, and how many the bucket had before."""
        epoch, place = divmod(number, int(self.ends[-1]))
        slot = int(self.permutation(self.seed, epoch, int(self.ends[-1]))[place])
        bucket = int(np.searchsorted(self.ends, slot, side="right"))
        start = int(self.ends[bucket - 1]) if bucket else 0
        return bucket, epoch * (int(self.ends[bucket]) - start) + slot - start

    def _member(self, bucket: int, position: int) -> int:
        """Return the sample at a position of a bucket's own endless order."""
        members = self.members[bucket]
        epoch, place = divmod(position, len(members))
        order = self.permutation(hashed_seed("bucket", self.seed, bucket), epoch, len(members))
        return int(members[order[place]])


class FixedBatches(Sampler[list[tuple[int, int]]]):
    """Validation batches: the pairs (i, i) in order, each bucket for itself, partial batches kept.

    Args:
        n: So many samples.
        batch_size: Samples of a batch.
        buckets: (N,) number of each sample's bucket; None if all belong together.
    """

    def __init__(self, n: int, batch_size: int, buckets: NDArray[np.int64] | None = None) -> None:
        numbers = np.zeros(n, np.int64) if buckets is None else buckets[:n]
        groups = [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]
        self.batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(index, index) for index in batch] for batch in self.batches)
