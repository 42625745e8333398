from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest

from lightning_mav.data.order import BucketBatches, EndlessBatches, FixedBatches, index_at


def positions(batches, num):
    return list(chain.from_iterable(islice(iter(batches), num)))


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    epochs = [[index_at(3, epoch * 10 + place, 10) for place in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [index_at(4, place, 10) for place in range(10)]


def test_batches_cross_epoch_ends_without_loss():
    pairs = positions(EndlessBatches(n=7, batch_size=4, seed=0), 7)
    assert [position for _, position in pairs] == list(range(28))
    assert sorted(index for index, _ in pairs) == sorted(4 * list(range(7)))


@pytest.mark.parametrize("start", [0, 4, 12, 40])
def test_a_restart_continues_the_same_order(start):
    whole = positions(EndlessBatches(n=7, batch_size=4, seed=1), 14)
    assert positions(EndlessBatches(n=7, batch_size=4, seed=1, start=start), 14 - start // 4) == whole[start:]


def test_two_ranks_read_what_one_reads():
    ranks = [EndlessBatches(n=7, batch_size=2, seed=1, start=8, rank=rank, world_size=2) for rank in (0, 1)]
    both = [a + b for a, b in zip(*(islice(iter(rank), 5) for rank in ranks), strict=True)]
    assert both == list(islice(iter(EndlessBatches(n=7, batch_size=4, seed=1, start=8)), 5))


@pytest.mark.row(56)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_another_number_of_ranks_goes_on_with_the_same_samples_after_any_step(world):
    """12 samples a step, in however many parts; an epoch of 35 ends inside steps."""
    whole = list(islice(iter(EndlessBatches(n=35, batch_size=12, seed=5)), 9))
    for done in range(8):
        ranks = [EndlessBatches(35, 12 // world, 5, 12 * done, rank, world) for rank in range(world)]
        steps = [list(chain(*parts)) for parts in zip(*(islice(iter(rank), 9 - done) for rank in ranks), strict=True)]
        assert steps == whole[done:]


def test_validation_keeps_the_last_partial_batch():
    batches = FixedBatches(5, 2)
    assert list(batches) == [[(0, 0), (1, 1)], [(2, 2), (3, 3)], [(4, 4)]] and len(batches) == 3


BUCKETS = np.array([0, 1, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 0])  # ten, three and two samples


def test_a_batch_is_of_one_bucket_and_no_sample_is_dropped():
    batches = list(islice(iter(BucketBatches(BUCKETS, 2, seed=0)), 8 * 20))  # an epoch has 5 + 2 + 1
    assert all(len({BUCKETS[index] for index, _ in batch}) == 1 for batch in batches)
    assert [position for batch in batches for _, position in batch] == list(range(320))
    times = Counter(index for batch in batches for index, _ in batch)
    assert {times[index] for index in np.flatnonzero(BUCKETS != 1)} == {20}
    assert sum(times[index] for index in np.flatnonzero(BUCKETS == 1)) == 80  # the last of three shares its batch
    assert all(26 <= times[index] <= 27 for index in np.flatnonzero(BUCKETS == 1))
    orders = [[BUCKETS[batch[0][0]] for batch in batches[8 * epoch :][:8]] for epoch in range(20)]
    assert all(sorted(order) == [0] * 5 + [1] * 2 + [2] for order in orders) and len(set(map(tuple, orders))) > 5


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("done", [0, 1, 5, 23])
def test_buckets_go_on_after_any_step_with_any_number_of_ranks(world, done):
    whole = list(islice(iter(BucketBatches(BUCKETS, 4, seed=3)), 30))
    ranks = [BucketBatches(BUCKETS, 4 // world, 3, 4 * done, rank, world) for rank in range(world)]
    steps = [list(chain(*parts)) for parts in zip(*(islice(iter(rank), 30 - done) for rank in ranks), strict=True)]
    assert steps == whole[done:]


def test_validation_takes_the_first_samples_each_bucket_for_itself():
    batches = FixedBatches(7, 2, BUCKETS)
    assert list(batches) == [[(0, 0), (2, 2)], [(4, 4), (5, 5)], [(1, 1), (6, 6)], [(3, 3)]] and len(batches) == 4
