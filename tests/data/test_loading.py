"""Readers that die or hang end the reading with one line that names what they read, and none outlives its process."""

import os
import re
import signal
import time
from itertools import islice

import numpy.random  # noqa: F401 - forked readers import it otherwise, which old loaders that are collected then break
import pytest
from torch.utils.data import Dataset

from lightning_mav.data.loading import Loader, begin_to_read
from lightning_mav.data.order import EndlessBatches, FixedBatches
from lightning_mav.errors import DataError


class Samples(Dataset):
    """Ten samples, one of which does something to its reader."""

    def __init__(self, at, action):
        self.at, self.action = at, action

    def __len__(self):
        return 10

    def __getitem__(self, pair):
        if pair[1] == self.at:
            self.action()
        return {"position": pair[1], "reader": os.getpid()}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(600)


def stop_all_but_the_reader():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def fail():
    raise RuntimeError("no such frame")


def loader(action=None, at=-1, batches=None, timeout=60):
    settings = {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True}
    settings |= {"timeout": timeout, "worker_init_fn": begin_to_read}
    return Loader(Samples(at, action), batch_sampler=batches or EndlessBatches(10, 2, seed=0), **settings)


def read(loader, num):
    return [batch["position"].tolist() for batch in islice(loader, num)]


def indices(*positions):
    given = [pair for batch in islice(EndlessBatches(10, 2, seed=0), 20) for pair in batch]
    return ", ".join(str(given[position][0]) for position in positions)


def test_batches_come_in_order_and_again():
    fixed = loader(batches=FixedBatches(5, 2))
    assert read(fixed, 9) == read(fixed, 9) == [[0, 1], [2, 3], [4]]
    assert len(fixed) == 3
    assert read(loader(), 3) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.row(46)
def test_a_reader_that_is_killed_is_noticed_and_what_it_read_is_named():
    with pytest.raises(DataError, match=r"killed by SIGKILL") as caught:
        read(loader(die, at=8), 9)
    first, last = map(int, re.search(r"positions (\d+) to (\d+)", str(caught.value)).groups())
    assert first in (4, 8) and last == first + 5  # every second batch is its own; one may have been read already
    assert "data.num_workers" in str(caught.value)


@pytest.mark.row(46)
def test_a_reader_that_hangs_is_given_up_and_ended():
    began, source = time.monotonic(), loader(hang, at=6, timeout=2)
    with pytest.raises(DataError, match=r"no batch for 2 s while") as caught:
        read(source, 9)
    assert f"samples {indices(6, 7)} (positions 6 to 7)" in str(caught.value)
    readers = source._iterator._workers
    for reader in readers:
        reader.join(5)
    assert not any(reader.is_alive() for reader in readers)
    assert time.monotonic() - began < 30


@pytest.mark.row(45)
def test_signals_to_the_whole_group_do_not_reach_readers():
    assert read(loader(stop_all_but_the_reader, at=2), 4)[1] == [2, 3]


def test_what_a_data_set_raises_is_its_own():
    with pytest.raises(RuntimeError, match="no such frame"):
        read(loader(fail, at=2), 4)


@pytest.mark.row("45b")
@pytest.mark.parametrize("busy", [True, False])
def test_readers_end_with_a_process_that_is_killed(busy):
    source, (here, there) = loader(hang if busy else None, at=4), os.pipe()
    if not (child := os.fork()):
        for number, batch in enumerate(source):
            os.write(there, b"".join(f"{pid} ".encode() for pid in batch["reader"].tolist()))
            if number == 1:
                time.sleep(1)  # a reader hangs meanwhile
                os.kill(os.getpid(), signal.SIGKILL)
    os.close(there)
    os.waitpid(child, 0)
    readers = {int(pid) for pid in os.read(here, 1000).split()}
    until = time.monotonic() + 30
    while left := [pid for pid in readers if runs(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert len(readers) == 2


def runs(pid):
    """Tell whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
