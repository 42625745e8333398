"""A run that is killed and started again goes on as if nothing had been: same numbers, no sample lost or repeated."""

import random
import signal
import subprocess
import sys
from functools import cache

import pytest

from lightning_mav.checkpoint.resolve import newest_checkpoint
from tests.faults.forks import ROOT, Case, environment, server
from tests.faults.journal import consumed, written
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import STAGES, commands

SAVED_EVERY = 3  # steps
BATCHES = dict(zip(STAGES, (1, 2, 1, 2, 2), strict=True))  # that a step accumulates
MOMENTS = ("forward", "within", "backward", "update", "end")
WORKERS = {20: 1, 30: 2}  # processes that read data in the run that dies in this step; in the others none


@pytest.fixture(scope="module")
def words(tmp_path_factory, image_folder):
    """Return a function that gives the command of a stage in a run folder, for some steps."""
    of_stage = commands(tmp_path_factory.mktemp("stages"), image_folder)

    def command(stage, run, steps, *options):
        length = ["--trainer.max_steps", steps, "--checkpoint_every", SAVED_EVERY]
        return of_stage(stage, run, *length, "--trainer.accumulate_grad_batches", BATCHES[stage], *options)

    return command


def kill_in(step):
    """Return what kills a process in a step, at the next of ``MOMENTS``."""
    moment = MOMENTS[step % len(MOMENTS)]
    if moment == "within":
        return ["kills:within", step, random.Random(step).uniform(0, 0.03)]
    return ["kills:in_step", step, moment]


def killed_in(words, folder, stages, steps, kills):
    """Kill the run of each stage in each of these steps, and let it end.

    Returns:
        What differs from undisturbed runs: the stage, the step it was last killed in or "end", and what.
    """

    def run_all(ending, inject, status=0, workers=0):
        length = [steps, "--data.num_workers", workers]
        ended = server().run([Case(words(one, folder / f"{one}{ending}", *length), inject) for one in stages])
        assert [one for one in ended if one.status != status] == []

    whole = cache(lambda stage, name: outcome(folder / f"{stage}-whole" / "checkpoints" / name))
    run_all("-whole", ["kills:keep_all"])
    wrong = []
    for step in kills:
        run_all("", kill_in(step), -signal.SIGKILL, WORKERS.get(step, 0))
        if step >= SAVED_EVERY:
            wrong += [(stage, step, part) for stage in stages for part in differing(folder / stage, whole, step)]
    run_all("", [])
    wrong += [(stage, "end", part) for stage in stages for part in differing(folder / stage, whole, steps)]
    for stage in stages:
        check_samples(folder / stage, folder / f"{stage}-whole", steps * BATCHES[stage] * 2)
    return wrong


def differing(run, whole, step):
    """Return the parts of a run's newest checkpoint that are not those of the undisturbed run."""
    newest = newest_checkpoint(run)
    last = step if step % SAVED_EVERY == 0 else step - step % SAVED_EVERY
    assert newest.name in (f"step={last:06d}.ckpt", f"step={step:06d}.ckpt")
    return [part for part, value in whole(run.name, newest.name).items() if outcome(newest)[part] != value]


def check_samples(run, whole, num):
    """Every sample is there, once, with its noise, timestep and loss; also what was taken again was the same."""
    expected = consumed(whole)
    assert [one[2] for one in expected] == list(range(num))
    assert consumed(run) == expected
    assert set(written(run)) == set(expected)


@pytest.mark.row(38)
def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(words, tmp_path):
    assert killed_in(words, tmp_path, ["decoder", "sr_spatial"], steps=8, kills=[2, 3, 6]) == []


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.row(38)
@pytest.mark.row(56)
def test_five_stages_are_killed_in_each_of_forty_steps(words, tmp_path):
    """Two hundred kills; with other numbers of data workers in between."""
    assert killed_in(words, tmp_path, list(STAGES), steps=40, kills=range(40)) == []


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.row(56)
def test_one_process_becomes_two_and_one_again(words, tmp_path):
    """The same samples with the same noise, each once, and the same losses, in float64 and without dropout."""
    plain = ["--model.config.network.dropout", 0, "--trainer.precision", "64-true"]
    alone, two = ["--data.batch_size", 4], ["--trainer.devices", 2, "--trainer.strategy", "ddp"]

    def command(run, steps, *options):
        return words("sr_spatial", tmp_path / run, steps, *plain, *options)

    def with_one(run, steps):
        (ended,) = server().run([Case(command(run, steps, *alone))])
        assert ended.status == 0, ended.err

    with_one("whole", 9)
    with_one("elastic", 3)
    launched = [sys.executable, "-m", "lightning_mav", *command("elastic", 6, *two)]
    done = subprocess.run(launched, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with_one("elastic", 9)
    whole = consumed(tmp_path / "whole")
    elastic = sorted(consumed(tmp_path / "elastic") + consumed(tmp_path / "elastic", rank=1), key=lambda one: one[2])
    assert [one[2] for one in whole] == list(range(9 * BATCHES["sr_spatial"] * 4))
    assert [one[:-1] for one in elastic] == [one[:-1] for one in whole]
    assert max(abs(one[-1] - other[-1]) for one, other in zip(elastic, whole, strict=True)) < 1e-6
