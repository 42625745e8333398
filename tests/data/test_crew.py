"""Processes that hang, crash or fail cost their task and nothing else. The work is the standard library's own."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from lightning_mav.data.crew import Crew
from lightning_mav.errors import DataError


@pytest.fixture(scope="module", autouse=True)
def _server():
    """Let the server that forks import what later tests need, as it is started once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["lightning_mav.data.examine"])
    forkserver.ensure_running()


def outcomes(work, tasks, deadline=60.0):
    with Crew(work, 2, deadline) as crew:
        return [outcome for _, outcome in sorted(crew.map(tasks), key=lambda pair: pair[0])]


def test_every_task_has_its_own_result():
    assert outcomes(math.factorial, list(range(50))) == [math.factorial(n) for n in range(50)]


@pytest.mark.row(22)
def test_what_takes_too_long_is_given_up_and_the_rest_goes_on():
    start = time.monotonic()
    first, *rest = outcomes(time.sleep, [3600, 0, 0, 0, 0], deadline=0.5)
    assert time.monotonic() - start < 20
    assert isinstance(first, DataError) and "not decoded after 0.5 seconds" in str(first)
    assert rest == [None] * 4


@pytest.mark.row(23)
def test_a_crash_is_told_with_its_signal():
    found = outcomes(signal.raise_signal, [signal.SIGSEGV, signal.SIGCONT, signal.SIGABRT, signal.SIGCONT])
    assert ["SIGSEGV" in str(found[0]), "SIGABRT" in str(found[2])] == [True, True]
    assert found[1] is found[3] is None


def test_an_unknown_failure_is_one_line():
    good, bad = outcomes(math.sqrt, [4.0, -1.0])
    assert good == 2.0 and isinstance(bad, DataError) and str(bad).startswith("ValueError: ")


def test_no_process_outlives_the_crew():
    with Crew(os.getppid, 2, 60.0) as crew:
        list(crew.map([None] * 2))  # getppid takes no argument: each answers that it failed
        processes = [worker.process for worker in crew._idle]
        assert processes and all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)


HANGING = """
import time
from lightning_mav.data.crew import Crew
if __name__ == "__main__":
    with Crew(time.sleep, 2, 1.0) as crew:
        crew._give(0, 3600)
        print(*[worker.process.pid for worker in crew._busy.values()], flush=True)
        time.sleep(3600)
"""


def test_a_hanging_process_does_not_outlive_for_long_the_one_that_was_killed():
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", HANGING], cwd=root, stdout=subprocess.PIPE)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
