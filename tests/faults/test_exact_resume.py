"""A run that is killed and started again ends as if nothing had been: same numbers, no sample lost or repeated."""

import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import pytest

from tests.faults.forks import ROOT, Case, environment, server
from tests.faults.journal import consumed
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import STAGES, commands

MOMENTS = ("forward", "within", "backward", "update", "end")


@dataclass(frozen=True)
class Point:
    """Where a run is killed, and how it goes on.

    Attributes:
        step: Whole optimiser steps before the one that it dies in.
        moment: Of that step; ``within`` is a random time.
        accumulate: Batches a step.
        workers: Processes that read data, before the kill and after it.
    """

    step: int
    moment: str
    accumulate: int = 1
    workers: tuple[int, int] = (0, 0)

    @property
    def options(self):
        return ["--trainer.accumulate_grad_batches", self.accumulate]

    @property
    def kill(self):
        if self.moment == "within":
            return ["kills:within", self.step, random.Random(self.step).uniform(0, 0.03)]
        return ["kills:in_step", self.step, self.moment]


@pytest.fixture(scope="module")
def words(tmp_path_factory, image_folder):
    return commands(tmp_path_factory.mktemp("stages"), image_folder)


def differing(words, folder, stage, steps, points):
    """Kill a run at every point, start it again, and return the points where it did not end as the undisturbed one."""
    common = ["--trainer.max_steps", steps, "--checkpoint_every", 3]

    def case(name, point, workers=0, kill=()):
        options = [*common, *point.options, "--data.num_workers", workers]
        return Case(words(stage, folder / name, *options), list(kill))

    whole = {point.accumulate: case(f"whole {point.accumulate}", point) for point in points}
    killed = [case(str(i), point, point.workers[0], point.kill) for i, point in enumerate(points)]
    again = [case(str(i), point, point.workers[1]) for i, point in enumerate(points)]
    assert [one.err for one in server().run([*whole.values()]) if one.status] == []
    assert {one.status for one in server().run(killed)} == {-signal.SIGKILL}
    assert [one.err for one in server().run(again) if one.status] == []

    return {point: parts for i, point in enumerate(points) if (parts := different(folder, str(i), point, steps))}


def different(folder, name, point, steps):
    """Return in what a run differs from the undisturbed one, whose samples are all there, once and in order."""
    whole, other = folder / f"whole {point.accumulate}", folder / name
    expected = everything(whole)
    positions = [one[2] for one in expected["samples consumed"]]
    assert positions == list(range(steps * point.accumulate * 2))
    return [part for part, value in everything(other).items() if value != expected[part]]


@cache
def everything(run):
    """Return what a run ended with, and what it is made of."""
    return {**outcome(run), "samples consumed": consumed(run)}


@pytest.mark.row(38)
def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(words, tmp_path):
    points = [Point(step, moment, 1 + step % 2) for step, moment in zip((0, 3, 4, 5, 7), MOMENTS, strict=True)]
    assert differing(words, tmp_path, "decoder", 8, points) == {}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.row(38)
@pytest.mark.row(56)
@pytest.mark.parametrize("stage", STAGES)
def test_every_step_of_forty_may_be_the_last(words, tmp_path, stage):
    """40 kills a stage: each step once, the moments and one or two batches a step in turn."""
    workers = {11: (0, 1), 26: (1, 2), 33: (2, 0)} if stage == "decoder" else {17: (0, 2)}
    points = [Point(k, MOMENTS[k % 5], 1 + k // 5 % 2, workers.get(k, (0, 0))) for k in range(40)]
    assert differing(words, tmp_path, stage, 40, points) == {}


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.row(56)
def test_one_process_becomes_two_and_one_again(words, tmp_path):
    """The same samples with the same noise, each once, and the same losses, in float64 and without dropout."""
    plain = ["--model.config.network.dropout", 0, "--trainer.precision", "64-true", "--checkpoint_every", 4]
    alone, two = ["--data.batch_size", 4], ["--trainer.devices", 2, "--trainer.strategy", "ddp"]

    def command(run, steps, *options):
        return words("sr_spatial", tmp_path / run, *plain, "--trainer.max_steps", steps, *options)

    def with_one(run, steps):
        (ended,) = server().run([Case(command(run, steps, *alone))])
        assert ended.status == 0, ended.err

    with_one("whole", 12)
    with_one("elastic", 4)
    launched = [sys.executable, "-m", "lightning_mav", *command("elastic", 8, *two)]
    done = subprocess.run(launched, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with_one("elastic", 12)
    whole, elastic = consumed(tmp_path / "whole"), elastic_samples(tmp_path / "elastic")
    assert [one[:-1] for one in elastic] == [one[:-1] for one in whole]
    assert [one[2] for one in whole] == list(range(48))
    assert max(abs(one[-1] - other[-1]) for one, other in zip(elastic, whole, strict=True)) < 1e-6


def elastic_samples(run):
    """Return what both ranks consumed, in the order of the run."""
    return sorted(consumed(run) + consumed(run, rank=1), key=lambda one: one[2])
