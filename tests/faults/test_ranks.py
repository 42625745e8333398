"""Runs of two processes end together: on a signal to any of them, on the death of one, on a NaN in one's batch."""

import re
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
from tests.faults.toys import EVENT, RANKS, event_of, free_port, words

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


@pytest.mark.row(47)
def test_a_rank_that_fails_ends_the_other(pair):
    status, said, _ = pair("--data.at", 14, "--data.fault", "broken")
    assert status == [5, 3]
    assert "a broken sample" in said[1][0] and len(said[1]) == 1
    assert "lost the connection" in said[0][0] and len(said[0]) == 1


# whole processes, as a user starts them


@pytest.fixture
def job(tmp_path):
    """Return a function that runs a command to its end: exit code, what was said, seconds from event to end.

    Fails if anything that the command started is left after 30 seconds.
    """

    def run(*launcher, options=(), event=()):
        command = [sys.executable, "-m", *launcher, *words(tmp_path / "run", *RANKS, *options)]
        happens = {EVENT: event_of(*event)} if event else {}
        with (tmp_path / "said").open("w+") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment() | happens, stderr=said, start_new_session=True
            )
            family = set()
            while process.poll() is None:
                family |= set(descendants(process.pid))
                time.sleep(0.1)
            ended = time.time()
            while left := [pid for pid in family if runs(pid)]:
                assert time.time() < ended + DEADLINE, f"left over: {left}"
                time.sleep(0.1)
            said.seek(0)
            happened = tmp_path / "run" / "happened"
            seconds = time.time() - happened.stat().st_mtime if happened.exists() else 0.0
            return process.returncode, said.read(), seconds

    return run


def descendants(pid):
    """Return the ids of all processes below ``pid``."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [one for child in children for one in descendants(child)]


def runs(pid):
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def step_in(folder):
    """Return the step of the newest checkpoint of the run in ``folder``, which loads."""
    return read_checkpoint(newest_checkpoint(folder / "run"))["global_step"]


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.row(47)
def test_a_rank_that_the_command_has_started_stops_it_or_dies_and_the_command_goes_on(job, tmp_path):
    code, said, _ = job("lightning_mav", event=("SIGINT", 2, 1))
    assert code == 130 and "error: " not in said and "Traceback" not in said
    assert step_in(tmp_path) == 3
    code, said, seconds = job("lightning_mav", options=["--checkpoint_every", 2], event=("SIGKILL", 7, 1))
    assert code == 5 and "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "rank 1" in line and "SIGKILL" in line and "the same command goes on" in line
    assert seconds < DEADLINE
    assert step_in(tmp_path) == 6
    assert job("lightning_mav")[0] == 0 and step_in(tmp_path) == 8


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.row(47)
@pytest.mark.row("45b")
def test_the_command_is_killed_and_neither_ranks_nor_readers_are_left(job, tmp_path):
    options = ["--data.num_workers", 1, "--checkpoint_every", 2]
    code, _, seconds = job("lightning_mav", options=options, event=("SIGKILL", 5, 0))
    assert code == -signal.SIGKILL and seconds < DEADLINE
    assert step_in(tmp_path) == 4


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.row(45)
@pytest.mark.row(47)
def test_under_torchrun_a_signal_to_one_rank_saves_and_a_killed_one_ends_all(job, tmp_path):
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "lightning_mav"]
    code, said, _ = job(*torchrun, event=("SIGTERM", 2, 1))
    ends = re.findall(r"exitcode  : (-?\d+)", said)
    # Of the first that has left; torchrun may end the other before it has.
    assert code == 1 and "143" in ends and set(ends) <= {"143", "-15"}
    assert step_in(tmp_path) == 3
    code, said, seconds = job(*torchrun, options=["--checkpoint_every", 2], event=("SIGKILL", 7, 1))
    assert code == 1 and "Signal 9 (SIGKILL)" in said
    assert seconds < DEADLINE
    assert step_in(tmp_path) == 6
