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
from lightning_mav.checkpoint.io import TEMPORARY_PREFIX, read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint, step_of
from tests.faults.disks import disk, fill, grow, needs_mount
from tests.faults.forks import Case, server
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import saving_each_step

STEPS = 40  # of a run, which saves after each
TRACED = 3  # the save whose calls are counted
LATE = 200  # the last calls of a save, in which files take their names and old ones go


@pytest.fixture(scope="module")
def words(tmp_path_factory, image_folder):
    """Return a function that gives the command of a run in a folder, of some steps."""
    return saving_each_step(tmp_path_factory.mktemp("stages"), image_folder)


@pytest.fixture(scope="module")
def short(words, tmp_path_factory):
    """An undisturbed run of a few steps, with the calls of a save."""
    folder = tmp_path_factory.mktemp("short") / "run"
    (ended,) = server().run([traced(words, folder, TRACED + 2, calls_of(folder))])
    assert ended.status == 0, ended.err
    return folder


def calls_of(run):
    """Return where the calls of a save of a run are noted: beside its folder."""
    return run.with_suffix(".calls")


def traced(words, run, steps, calls):
    """Return the case of a run that notes the calls of a save in a file."""
    return Case(words(run, steps), ["kills:trace_save", TRACED, str(calls)])


def aimed(calls, num):
    """Return numbers of calls of a save as the traced one: half of them anywhere, half of them late."""
    calls = len(json.loads(calls.read_text()))
    draw = random.Random(num)
    return [draw.randrange(calls - LATE if late else 0, calls) for late in (False, True) for _ in range(num // 2)]


def kill_again_and_again(words, runs, calls, steps=STEPS, **circumstances):
    """Kill runs in the save after the newest checkpoint, at these calls, two runs at a time; check what each leaves."""
    for i in range(0, len(calls), len(runs)):
        newest = {run: newest_step(run) for run in runs}
        cases = [
            Case(words(run, steps), ["kills:in_save", newest[run] + 1, call], **circumstances)
            for run, call in zip(runs, calls[i:], strict=False)
        ]
        for (run, step), ended in zip(newest.items(), server().run(cases), strict=True):
            assert ended.status == -signal.SIGKILL, ended
            assert step == 0 or f"resuming {run} at step {step}" in ended.out
            assert newest_step(run) in (step, step + 1)
            assert len(list((run / "checkpoints").glob(f"{TEMPORARY_PREFIX}*"))) <= 2


def newest_step(run):
    """Return the steps in a run's newest checkpoint, which can be read."""
    newest = newest_checkpoint(run)
    return read_checkpoint(newest)["global_step"] if newest else 0


def check_ends(words, runs, whole, steps=STEPS):
    """Let runs end; they hold the same as the undisturbed one, and nothing is left behind."""
    assert [one.err for one in server().run([Case(words(run, steps)) for run in runs]) if one.status] == []
    kept = [f"step={step:06d}.ckpt" for step in (steps - 1, steps)]
    names = sorted(["last.ckpt", *kept, *(marker_of(Path(name)).name for name in kept)])
    for run in runs:
        assert sorted(os.listdir(run / "checkpoints")) == names
        assert step_of(newest_checkpoint(run)) == steps
        assert outcome(newest_checkpoint(run)) == outcome(newest_checkpoint(whole))


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    (ended,) = server().run([Case(words(folder, STEPS))])
    assert ended.status == 0, ended.err
    return folder


@pytest.mark.row(39)
def test_a_kill_while_saving_leaves_a_whole_checkpoint(words, short, tmp_path):
    runs = [tmp_path / "one", tmp_path / "other"]
    kill_again_and_again(words, runs, aimed(calls_of(short), 4), steps=TRACED + 2)
    check_ends(words, runs, short, steps=TRACED + 2)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.row(39)
def test_kills_while_saving(words, short, whole, tmp_path):
    runs = [tmp_path / "one", tmp_path / "other"]
    kill_again_and_again(words, runs, aimed(calls_of(short), 68))
    check_ends(words, runs, whole)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.row(40)
def test_kills_with_a_folder_for_temporary_files_elsewhere(words, short, whole, tmp_path):
    runs = [tmp_path / "one", tmp_path / "other"]
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("the run folders are on /dev/shm themselves")
        kill_again_and_again(words, runs, aimed(calls_of(short), 66), temporary=elsewhere)
        assert os.listdir(elsewhere) == []
    check_ends(words, runs, whole)


@pytest.mark.full
@needs_mount
@pytest.mark.timeout(3600)
@pytest.mark.row(42)
def test_kills_while_the_disk_is_full(words, short, whole, tmp_path):
    """Two checkpoints fit and half a third; when there is room again the same command goes on."""
    with ExitStack() as disks:
        size = room_for(short, checkpoints=2.5)
        runs = [disks.enter_context(disk(tmp_path / name, size)) / "run" for name in ("one", "other")]
        calls = [calls_of(run.parent) for run in runs]  # not on the full disk
        for ended in server().run([traced(words, run, STEPS, file) for run, file in zip(runs, calls, strict=True)]):
            assert ended.status == 5
            assert ["No space left" in line for line in ended.errors] == [True]
        assert [newest_step(run) for run in runs] == [TRACED - 1] * 2
        kill_again_and_again(words, runs, aimed(calls[0], 66))
        assert [newest_step(run) for run in runs] == [TRACED - 1] * 2
        for run in runs:
            grow(run.parent, 4 * size)
        check_ends(words, runs, whole)


def room_for(run, checkpoints):
    """Return the bytes that a run folder takes with that many checkpoints, in pages."""
    sizes = {path: -(-path.stat().st_size // 4096) * 4096 for path in run.rglob("*") if path.is_file()}
    one = [size for path, size in sizes.items() if path.name.endswith(".ckpt") and not path.is_symlink()]
    rest = sum(sizes.values()) - sum(size for path, size in sizes.items() if path.name.endswith(".ckpt"))
    return rest + int(checkpoints * max(one))


@needs_mount
@pytest.mark.row(43)
def test_a_full_folder_for_temporary_files_does_not_matter(words, short, tmp_path):
    with disk(tmp_path / "tmp", 4096) as elsewhere:
        fill(elsewhere)
        (ended,) = server().run([Case(words(tmp_path / "run", TRACED + 2), temporary=str(elsewhere))])
    assert ended.status == 0, ended.err
    assert outcome(newest_checkpoint(tmp_path / "run")) == outcome(newest_checkpoint(short))
