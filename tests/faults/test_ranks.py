"""Runs of two processes end together: on a signal to any of them, on the death of one, on a NaN in one's batch."""

import os
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
    """Return a function that runs two ranks in the folder ``run`` and says how each ended, and the newest checkpoint."""

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
