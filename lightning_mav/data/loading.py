"""Batches read by worker processes; one that dies or hangs is an error of one line, raised where a batch is awaited."""

import atexit
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_mav.data.batches import collate
from lightning_mav.errors import DataError
from lightning_mav.parent import die_with_parent

POLL = 5.0  # seconds after which a dead worker is noticed
SHOWN = 8  # samples that an error names


class Loader(DataLoader[dict[str, Any]]):
    """A DataLoader of lists of (index, position) whose ``timeout`` is the longest wait for a batch in seconds.

    Raises:
        DataError: While iterating: a worker has ended, or there was no batch for ``timeout`` seconds.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        before = signal.getsignal(signal.SIGCHLD)
        batches = super().__iter__()
        if not self.num_workers:
            return batches
        if threading.current_thread() is threading.main_thread():
            # Torch's handler, which an earlier loader may have left, raises anywhere, in the middle of a step as well.
            torchs = getattr(before, "__module__", "").startswith("torch.")
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if torchs else before)
        batches._timeout = min(POLL, self.timeout)
        return self._watched(batches)

    def _watched(self, batches: Any) -> Iterator[dict[str, Any]]:
        for number in count():
            try:
                batch = self._next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not (fault := self._fault(error, batches, number)):
                    raise
                for worker in batches._workers:
                    worker.kill()  # one that hangs would be waited for at the end
                raise DataError(fault) from error
            yield batch

    def _next(self, batches: Any) -> dict[str, Any]:
        """Wait for the next batch, looking at the workers now and then."""
        until = time.monotonic() + self.timeout
        while True:
            try:
                batch: dict[str, Any] = next(batches)
                return batch
            except RuntimeError as error:
                if "timed out" not in str(error) or time.monotonic() > until:
                    raise

    def _fault(self, error: Exception, batches: Any, number: int) -> str | None:
        """Say what happened to a worker while batch ``number`` was awaited; None if the error is the data set's own."""
        if "in DataLoader worker process" in str(error):
            return None
        if (dead := _dead(batches._workers)) is not None:
            many = self._samples(number, dead, self.num_workers * (self.prefetch_factor or 1))
            return (
                f"data: a reading process ended ({_end(batches._workers[dead].exitcode)}) while reading {many}; "
                "look at them, or lower data.num_workers if memory ran short"
            )
        if "timed out" in str(error):
            one = self._samples(number, number % self.num_workers, 1)
            return f"data: no batch for {self.timeout:g} s while reading {one}; look at them or raise data.timeout"
        return None

    def _samples(self, number: int, worker: int, num: int) -> str:
        """Name the samples of those of ``num`` batches from ``number`` on that ``worker`` has its turn to read."""
        assert self.batch_sampler is not None
        given = enumerate(islice(self.batch_sampler, number, number + num), number)
        pairs: list[Any] = [pair for i, batch in given if i % self.num_workers == worker for pair in batch]
        indices = ", ".join(str(index) for index, _ in pairs[:SHOWN]) + (", ..." if len(pairs) > SHOWN else "")
        return f"samples {indices} (positions {pairs[0][1]} to {pairs[-1][1]})" if pairs else "no sample"


def batch_loader(dataset: Dataset[dict[str, Any]], batches: Any, num_workers: int, timeout: float = 300) -> Loader:
    """Return a loader of ``batches``, lists of keys of ``dataset``; without workers it reads in this process.

    Args:
        dataset: What is read.
        batches: Gives the same lists of (index, position) every time it is iterated.
        num_workers: Processes that read.
        timeout: Seconds after which a batch is given up.
    """
    workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": torch.cuda.is_available()}
    if num_workers:
        workers |= {"multiprocessing_context": "spawn", "timeout": timeout, "persistent_workers": True}
        workers |= {"worker_init_fn": begin_to_read}
    return Loader(dataset, batch_sampler=batches, collate_fn=collate, **workers)


def begin_to_read(worker: int) -> None:
    """Prepare a worker: signals that are sent to all processes are for the one that trains, which ends its workers."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_readers() -> None:
    """Kill workers that still hang at the end; Python itself would wait for them."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _dead(workers: list[Any]) -> int | None:
    """Return the number of a worker that has ended; one whose pipe has just broken is about to."""
    if not (ended := wait([worker.sentinel for worker in workers], timeout=1)):
        return None
    number = [worker.sentinel for worker in workers].index(ended[0])
    workers[number].join(1)  # its pipes close a moment before its exit code is known
    return number


def _end(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
