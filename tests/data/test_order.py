from itertools import chain, islice

import pytest

from lightning_mav.data.order import EndlessBatches, FixedBatches, index_at


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
