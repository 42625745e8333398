"""Runs of two processes end together: on a signal to any of them, on the death of one, on a NaN in one's batch."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint
from tests.faults.forks import ROOT, Case, environment, server
from tests.faults.toys import RANKS, free_port, words

DEADLINE = 30  # seconds until nothing of a job is left


@pytest.fixture
def pair(tmp_path):
    """Return a function that runs two ranks and says how they ended, what they said, and the newest checkpoint."""

    def run(*options, event=()):
        port, command = free_port(), words(tmp_path / "run", *RANKS, *options)
        cases = [Case(command, ["toys:join", rank, port, *event], seconds=60) for rank in (0, 1)]
        ended = server().run(cases, jobs=2)
        newest = newest_checkpoint(tmp_path / "run")
        return [one.status for one in ended], [lines(one) for one in ended], newest and read_checkpoint(newest)

    return run


def lines(ended):
    """Return what was said about errors; nothing looks like a traceback."""
    assert "Traceback" not in ended.err, ended.err
    return [line for line in ended.err.splitlines() if line.startswith("error: ")]


@pytest.mark.row(45)
@pytest.mark.row(47)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_to_one_rank_stops_both_after_the_same_step(pair, name, code, rank):
    status, said, checkpoint = pair(event=(name, 2, rank))
    assert status == [code, code]
    assert said == [[], []]
    assert checkpoint["global_step"] == 3


@pytest.mark.row(47)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_other(pair, rank):
    began = time.monotonic()
    status, said, checkpoint = pair("--checkpoint_every", 2, event=("SIGKILL", 5, rank))
    assert time.monotonic() - began < DEADLINE
    assert status[rank] == -signal.SIGKILL and status[1 - rank] == 5
    assert len(said[1 - rank]) == 1 and "lost the connection" in said[1 - rank][0]
    assert checkpoint["global_step"] == 4
    assert pair()[0] == [0, 0]  # the same command goes on


@pytest.mark.row(49)
def test_a_nan_in_the_batch_of_one_rank_stops_both_and_is_named_by_both(pair):
    status, said, checkpoint = pair("--data.at", 14)  # the fourth step, the second rank
    assert status == [6, 6] and checkpoint is None
    assert said[0] == said[1] and len(said[0]) == 1
    assert "the loss is not finite at step 3, samples " in said[0][0]


@pytest.mark.row(49)
def test_a_nan_in_the_batch_of_one_rank_is_skipped_by_both(pair):
    status, _, checkpoint = pair("--data.at", 14, "--model.on_nan", "skip")
    assert status == [0, 0]
    assert checkpoint["global_step"] == 8 and checkpoint["skipped"] == [1, 0]
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


# whole processes, as a user starts them


class Job:
    """A command that is running, in a session of its own; at the end nothing of it may be left."""

    def __init__(self, *command, event=()):
        self.began = time.monotonic()
        given = environment() | ({"TOY_EVENT": event_of(*event)} if event else {})
        settings = {"cwd": ROOT, "env": given, "text": True, "start_new_session": True}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, **settings
        )

    def family(self):
        """Return the processes that descend from the command, dead or alive."""
        return descendants(self.process.pid)

    def end(self):
        """Wait for the end; return exit code and error lines."""
        _, said = self.process.communicate(timeout=240)
        return self.process.returncode, said


def event_of(what, step, rank=0):
    import json

    return json.dumps({"what": what, "step": step, "rank": rank})


def descendants(pid):
    """Return the ids of all processes below ``pid``."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [one for child in children for one in descendants(child)]


def alive(pids):
    """Return those that run; a zombie does not."""

    def runs(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


def gone_within(pids, seconds):
    """Wait until none of the processes runs; return the seconds that it took."""
    began = time.monotonic()
    while left := alive(pids):
        assert time.monotonic() - began < seconds, f"still there: {left}"
        time.sleep(0.2)
    return time.monotonic() - began


def wait_for(path, seconds=240):
    """Wait until a file is there."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.1)
