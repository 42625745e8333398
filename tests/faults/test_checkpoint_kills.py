"""Kills and full disks while a checkpoint is written: the newest that counts is whole, and the run goes on from it."""

import json
import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from lightning_mav.checkpoint.digest import marker_of

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint, step_of
from tests.faults.disks import disk, fill, grow, needs_mount
from tests.faults.forks import Case, server
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import commands

STEPS, SAVED = 5, 3  # a run saves after each of its steps; the save after the third is disturbed
LATE = 200  # the last calls of a save, in which files take their names and old ones go
KEPT = [f"step={step:06d}.ckpt" for step in (STEPS - 1, STEPS)]


@pytest.fixture(scope="module")
def words(tmp_path_factory, image_folder):
    """Return a function that gives the command of a run in a folder."""
    of_stage = commands(tmp_path_factory.mktemp("stages"), image_folder)
    options = ["--checkpoint_every", 1, "--trainer.max_steps", STEPS, "--trainer.callbacks", "null"]
    return lambda run: of_stage("sr_spatial", run, *options)


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    (ended,) = server().run([traced(words, folder)])
    assert ended.status == 0, ended.err
    return folder


def traced(words, run, **circumstances):
    """Return the case of a run that notes the calls of the save in question."""
    return Case(words(run), ["kills:trace_save", SAVED, f"{run}.calls"], **circumstances)


def aimed(run, num):
    """Return numbers of calls of a traced save: half of them anywhere, half of them late."""
    calls = len(json.loads(Path(f"{run}.calls").read_text()))
    draw = random.Random(num)
    return [draw.randrange(calls - LATE * late, calls) for late in (0, 1) for _ in range(num // 2)]


def kill(words, calls, **circumstances):
    """Kill a run at each call of the save; the newest checkpoint of each must be one that was whole before or after."""
    cases = [Case(words(run), ["kills:in_save", SAVED, call], **circumstances) for run, call in calls.items()]
    assert {one.status for one in server().run(cases)} == {-signal.SIGKILL}
    for run in calls:
        newest = newest_checkpoint(run)
        assert step_of(newest) in (SAVED - 1, SAVED)
        read_checkpoint(newest)


def go_on(words, calls, whole):
    """Start killed runs again, and return those that did not end as the undisturbed one."""
    newest = {run: step_of(newest_checkpoint(run)) for run in calls}
    ended = zip(calls, server().run([Case(words(run)) for run in calls]), strict=True)
    return [(calls[run], one) for run, one in ended if not ended_well(run, one, newest[run], whole)]


def ended_well(run, ended, newest, whole):
    """Say whether a run went on from its newest checkpoint, ended as the undisturbed one, and left nothing behind."""
    if ended.status or f"resuming {run} at step {newest}" not in ended.out:
        return False
    names = ["last.ckpt", *KEPT, *(marker_of(Path(name)).name for name in KEPT)]
    return outcome(run) == outcome(whole) and sorted(os.listdir(run / "checkpoints")) == sorted(names)


@pytest.mark.row(39)
@pytest.mark.parametrize("num", [4, pytest.param(68, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_kills_while_saving(words, whole, tmp_path, num):
    calls = {tmp_path / str(i): call for i, call in enumerate(aimed(whole, num))}
    kill(words, calls)
    assert go_on(words, calls, whole) == []


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.row(40)
def test_kills_with_temporary_files_on_another_file_system(words, whole, tmp_path):
    calls = {tmp_path / str(i): call for i, call in enumerate(aimed(whole, 66))}
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("the run folders are on /dev/shm themselves")
        kill(words, calls, temporary=elsewhere)
        assert os.listdir(elsewhere) == []
    assert go_on(words, calls, whole) == []


@pytest.mark.full
@needs_mount
@pytest.mark.timeout(600)
@pytest.mark.row(42)
def test_kills_while_the_disk_is_full(words, whole, tmp_path):
    """Two checkpoints fit and half a third; when there is room again the same command goes on."""
    size = room_for(whole, checkpoints=2.5)
    with ExitStack() as disks:
        full = disks.enter_context(disk(tmp_path / "full", size)) / "run"
        (ended,) = server().run([traced(words, full)])
        assert ended.status == 5 and len(ended.err.splitlines()) == 1 and "No space left" in ended.err
        assert step_of(newest_checkpoint(full)) == SAVED - 1
        runs = [disks.enter_context(disk(tmp_path / str(i), size)) / "run" for i in range(66)]
        calls = dict(zip(runs, aimed(full, 66), strict=True))
        kill(words, calls)
        for run in runs:
            grow(run.parent, 4 * size)
        assert go_on(words, calls, whole) == []


def room_for(run, checkpoints):
    """Return the bytes that a run folder takes with that many checkpoints, in pages."""
    sizes = {path: -(-path.stat().st_size // 4096) * 4096 for path in run.rglob("*") if path.is_file()}
    one = max(size for path, size in sizes.items() if path.suffix == ".ckpt")
    return sum(sizes.values()) + int((checkpoints - len(KEPT)) * one)


@needs_mount
@pytest.mark.row(43)
def test_a_full_folder_for_temporary_files_does_not_matter(words, whole, tmp_path):
    with disk(tmp_path / "tmp", 4096) as elsewhere:
        fill(elsewhere)
        (ended,) = server().run([Case(words(tmp_path / "run"), temporary=str(elsewhere))])
    assert ended.status == 0, ended.err
    assert outcome(tmp_path / "run") == outcome(whole)
