"""Processes that do one piece of work at a time and can be killed over it: decoders hang and crash on bad files."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from lightning_mav.errors import DataError, MachineError

Task = TypeVar("Task")
Result = TypeVar("Result")
Outcome = TypeVar("Outcome")


@dataclass
class _Worker:
    """A process, our end of its pipe, the number of its task, and when that must be done."""

    process: BaseProcess
    connection: Connection
    number: int = -1
    until: float = 0.0


class Crew(Generic[Task, Result]):
    """Processes that share tasks; a context, which ends them.

    Args:
        work: Done to each task in a process of its own, so it must be found by name there.
        num: Processes.
        deadline: Seconds after which a task is given up and its process killed.
    """

    def __init__(self, work: Callable[[Task], Result], num: int, deadline: float) -> None:
        # A server that has imported everything forks in no time, and not from a process with threads.
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload([work.__module__])
        self._work, self._num, self._deadline = work, num, deadline
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def map(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Result | DataError]]:
        """Yield (number of the task, its result or what is wrong with it), in the order in which they are done."""
        numbers = iter(range(len(tasks)))
        while True:
            while len(self._busy) < self._num and (number := next(numbers, None)) is not None:
                self._give(number, tasks[number])
            if not self._busy:
                return
            for worker in self._waited_for():
                del self._busy[worker.connection]
                yield worker.number, self._outcome(worker)

    def _give(self, number: int, task: Task) -> None:
        worker = self._idle.pop() if self._idle else self._start()
        worker.number, worker.until = number, time.monotonic() + self._deadline
        with suppress(OSError):  # one that has died meanwhile is found out when it is asked for its result
            worker.connection.send(task)
        self._busy[worker.connection] = worker

    def _waited_for(self) -> list[_Worker]:
        """Return the workers that are done, or over their time."""
        earliest = min(worker.until for worker in self._busy.values())
        ready = wait(list(self._busy), max(0.0, earliest - time.monotonic()))
        late = [w.connection for w in self._busy.values() if w.until <= time.monotonic()]
        return [self._busy[connection] for connection in {*ready, *late}]

    def _outcome(self, worker: _Worker) -> Result | DataError:
        try:
            if worker.connection.poll():
                outcome: Result | DataError = worker.connection.recv()
                self._idle.append(worker)
                return outcome
            fault = f"not decoded after {self._deadline:g} seconds"
        except (EOFError, OSError):
            worker.process.join(5)
            fault = f"crashes the decoder ({_signal_name(worker.process.exitcode)})"
        _end(worker)
        return DataError(f"{fault}; remove it or convert it")

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work, self._deadline), daemon=True)
        process.start()
        theirs.close()
        try:
            ours.recv()  # it has imported everything, so that the deadline is for the work alone
        except EOFError as error:
            raise MachineError("cannot start a process for decoding; free some memory or lower num_workers") from error
        return _Worker(process, ours)

    def __enter__(self) -> "Crew[Task, Result]":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            _end(worker)


def in_order(outcomes: Iterator[tuple[int, Outcome]]) -> Iterator[Outcome]:
    """Yield what ``Crew.map`` yields in the order of the tasks; holds what is done too early."""
    early: dict[int, Outcome] = {}
    next_one = 0
    for number, outcome in outcomes:
        early[number] = outcome
        while next_one in early:
            yield early.pop(next_one)
            next_one += 1


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _signal_name(code: int | None) -> str:
    """Return what ended a process with this exit code."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, work: Callable[[Any], Any], deadline: float) -> None:
    """Answer tasks until the other end is closed, as it is when the process that gives them is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that gives the tasks is told too, and ends this one
    with suppress(EOFError, OSError):
        connection.send("ready")
        while True:
            task = connection.recv()
            _end_after(2 * deadline)
            connection.send(_attempt(work, task))
            _end_after(0)


def _end_after(seconds: float) -> None:
    """Let the system end this process in time, should it hang when nobody is left to kill it; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except DataError as error:
        return error
    except Exception as error:  # whatever a library makes of damaged bytes, the run goes on
        return DataError(f"{type(error).__name__}: {' '.join(str(error).split())}")
