"""How runs of one process end: signals, lost readers, steps that are not finite, full memory, full disks, bad logs."""

import os
import signal
import subprocess

import pytest
import torch

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint, step_of
from lightning_mav.checkpoint.resume import RunFolder
from tests.faults.disks import disk, needs_mount
from tests.faults.forks import Case, server
from tests.faults.toys import words

SAVED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "skipped")


@pytest.fixture
def run(tmp_path):
    """The folder of a run."""
    return tmp_path / "run"


def fit(run, *options, event=(), inject=()):
    """Train a toy in a process of its own and return how that ended."""
    before = ["toys:expect", *event] if event else list(inject)
    (ended,) = server().run([Case(words(run, *options), before)])
    assert "Traceback" not in ended.err, ended.err
    return ended


def error_of(ended):
    """Return the one line that is an error."""
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    return line


def step(run):
    """Return the step of the newest checkpoint, which loads; None if there is none."""
    newest = newest_checkpoint(run)
    return newest and read_checkpoint(newest)["global_step"]


def same(a, b):
    """Compare two nested states bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# signals


@pytest.mark.row(45)
def test_a_second_sigint_ends_at_once(run):
    ended = fit(run, "--checkpoint_every", 1, event=("SIGINT SIGINT", 3))
    assert ended.status == 130
    assert step(run) == 3  # the step under way is not waited for


@pytest.mark.row(45)
def test_the_warning_before_a_time_limit_stops_as_a_signal_does_and_the_same_command_goes_on(run, monkeypatch):
    """SLURM's, detected from its variables; Lightning's own requeueing stays out of it."""
    ended = fit(run, inject=["toys:in_slurm", "SIGUSR1", 2])
    assert ended.status == 128 + signal.SIGUSR1
    assert step(run) == 3
    assert not list(run.glob("hpc_ckpt*"))
    again = fit(run, inject=["toys:in_slurm"])
    assert again.status == 0 and "resuming" in again.out
    assert step(run) == 8


# steps that are not finite


@pytest.mark.row(49)
def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_sample(run):
    ended = fit(run, "--data.at", 7, "--checkpoint_every", 2)
    assert ended.status == 6
    line = error_of(ended)
    assert "the loss is not finite at step 3, samples " in line and "model.on_nan skip" in line
    assert step(run) == 2
    on = fit(run, "--data.at", 7, "--checkpoint_every", 2, "--model.on_nan", "skip")  # the advice is good
    assert on.status == 0 and step(run) == 8


@pytest.mark.row(49)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_leaves_out_a_step_resumes_bit_for_bit(run, accumulate):
    options = ["--data.at", 7, "--model.on_nan", "skip", "--checkpoint_every", 1]
    options += ["--trainer.accumulate_grad_batches", accumulate]
    bad = 3 // accumulate
    whole, parts = run / "whole", run / "parts"
    run.mkdir()
    assert fit(whole, *options).status == 0
    for killed_in in (bad, bad + 1):  # before the step that is left out counts, and after it
        assert fit(parts, *options, event=("SIGKILL", killed_in)).status == -signal.SIGKILL
    assert fit(parts, *options).status == 0
    one, other = (read_checkpoint(newest_checkpoint(folder)) for folder in (whole, parts))
    assert one["skipped"] == [1, 0] and one["global_step"] == 8
    for part in SAVED:
        assert same(one[part], other[part]), part


@pytest.mark.row(49)
def test_a_step_that_is_left_out_changes_nothing(run):
    options = ["--model.on_nan", "skip", "--data.at", 7, "--checkpoint_every", 1, "--trainer.max_steps"]
    assert fit(run, *options, 3).status == 0
    before = read_checkpoint(newest_checkpoint(run))
    ended = fit(run, *options, 4)
    assert ended.status == 0 and "this step is left out" in ended.err
    after = read_checkpoint(newest_checkpoint(run))
    assert after["global_step"] == before["global_step"] + 1
    assert same(before["state_dict"], after["state_dict"])
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (before, after)]
    assert moments[0] and same(*moments)


@pytest.mark.row(49)
def test_too_many_steps_left_out_in_a_row_stop_the_run(run):
    ended = fit(run, "--model.on_nan", "skip", "--model.max_skipped", 2, "--data.fault", "all", "--data.at", 4)
    assert ended.status == 6
    assert "at step 4" in error_of(ended) and "after 2 steps left out in a row" in error_of(ended)
    assert step(run) is None


@pytest.mark.row(49)
def test_weights_that_the_last_step_has_ruined_are_not_saved(run):
    ended = fit(run, "--trainer.max_steps", 1, inject=["toys:ruin_weights"])
    assert ended.status == 6 and "the weights are not finite after step 1" in error_of(ended)
    assert step(run) is None


# readers of data


@pytest.mark.full
@pytest.mark.row(46)
@pytest.mark.parametrize(("fault", "said"), [("SIGKILL", "killed by SIGKILL"), ("hang", "no batch for 120 s")])
def test_a_lost_reader_is_an_error_of_the_data_and_the_last_step_is_saved(run, fault, said):
    # Longer than a reader takes to start, which imports everything.
    ended = fit(run, "--data.num_workers", 1, "--data.timeout", 120, "--data.at", 9, "--data.fault", fault)
    assert ended.status == 3
    assert said in error_of(ended) and " samples " in error_of(ended)
    assert 1 <= step(run) <= 4


# memory and disks


@pytest.mark.row(48)
def test_memory_that_runs_out_leaves_a_checkpoint_and_a_hint(run):
    ended = fit(run, event=("memory", 3))
    assert ended.status == 5
    assert "out of memory" in error_of(ended) and "data.batch_size" in error_of(ended)
    assert step(run) == 3


@pytest.mark.row(42)
@needs_mount
def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(run):
    with disk(run, 2**20):
        ended = fit(run, "--checkpoint_every", 2, inject=["toys:fill_at", str(run), 3])
        assert ended.status == 5
        assert str(run / "checkpoints" / "step=000004.ckpt") in error_of(ended) and "free some space" in error_of(ended)
        (run / "filler").unlink()
        assert step(run) == 2
        assert [step_of(path) for path in (run / "checkpoints").glob("step=*.ckpt")] == [2]
        assert fit(run, "--checkpoint_every", 2).status == 0


@pytest.mark.row(44)
@needs_mount
def test_a_run_folder_that_cannot_be_written_is_refused_before_the_first_step(run):
    run.mkdir()
    subprocess.run(["mount", "--bind", run, run], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", run], check=True)
        ended = fit(run)
        assert ended.status == 5 and f"{run}: cannot write to the run folder" in error_of(ended)
    finally:
        subprocess.run(["umount", run], check=True)


@pytest.mark.row(9)
def test_a_device_that_is_not_there_is_refused(run):
    ended = fit(run, "--trainer.accelerator", "gpu", "--trainer.devices", 99)
    assert ended.status == 5 and "doctor" in error_of(ended)
    assert step(run) is None


@pytest.mark.row(50)
def test_a_second_run_in_the_same_folder_is_refused_and_the_lock_of_a_dead_one_is_free(run):
    folder = RunFolder(run)
    folder.prepare()
    with folder.lock():
        ended = fit(run)
        assert ended.status == 5 and f"{run}: in use by process {os.getpid()} on " in error_of(ended)
    assert fit(run, event=("SIGKILL", 3)).status == -signal.SIGKILL
    assert fit(run).status == 0


# logs and clocks


@pytest.mark.row(51)
@needs_mount
def test_a_log_on_a_full_disk_costs_the_log_only(run):
    (run / "logs").parent.mkdir()
    options = ["--trainer.logger", "true", "--trainer.log_every_n_steps", 1, "--trainer.max_steps", 150]
    with disk(run / "logs", 2**16):
        ended = fit(run, *options, inject=["toys:fill_at", str(run / "logs"), 3])
        assert ended.status == 0, ended.err
        assert ended.err.count("cannot write the log") == 1
    assert step(run) == 150


@pytest.mark.row(51)
def test_a_clock_that_jumps_changes_nothing(run):
    ended = fit(run, "--checkpoint_every", 2, inject=["toys:turn_back_the_clock", 3])
    assert ended.status == 0
    assert sorted(path.name for path in (run / "checkpoints").glob("step=*.ckpt"))[-1] == "step=000008.ckpt"
    assert step(run) == 8
