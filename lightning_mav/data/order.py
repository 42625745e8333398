"""The order of a run: a function of (seed, epoch), so a position alone says which sample comes next.

``position`` counts the samples a run has consumed. Each batch is a list of (index, position) pairs; the data sets key
their random draws by that pair, so workers, ranks and restarts change nothing.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import Sampler

from lightning_mav.seeding import generator


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


class FixedBatches(Sampler[list[tuple[int, int]]]):
    """Validation batches: the pairs (i, i) in order, the last partial batch kept."""

    def __init__(self, n: int, batch_size: int) -> None:
        self.n, self.batch_size = n, batch_size

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, self.n, self.batch_size):
            yield [(i, i) for i in range(first, min(first + self.batch_size, self.n))]
