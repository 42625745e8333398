"""A run goes on with another number of processes: the same samples and noise, and so nearly the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint

TWO = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "2"]
ONE = ["--trainer.devices", "1", "--data.batch_size", "4"]
ALIKE = ["--model.config.network.dropout", "0", "--trainer.limit_val_batches", "0", "--model.lr", "1e-4"]


@pytest.fixture
def fit(fit_command):
    """Return a function that runs a command in processes of its own."""

    def run(folder, *options):
        words = [sys.executable, "-m", "lightning_mav", *fit_command(folder, *ALIKE, *options)]
        settings = {"cwd": Path(__file__).parents[2], "env": os.environ | {"OMP_NUM_THREADS": "1"}}
        return subprocess.run(words, **settings, capture_output=True, text=True, timeout=250)

    return run


@pytest.mark.full
@pytest.mark.row(56)
@pytest.mark.parametrize(("first", "second"), [(TWO, ONE), (ONE, TWO)], ids=["2 to 1", "1 to 2"])
def test_a_run_goes_on_with_another_number_of_processes(fit, tmp_path, first, second):
    for run, options in (("changed", first), ("changed", second), ("whole", ONE)):
        steps = "3" if options is first and run == "changed" else "6"
        done = fit(tmp_path / run, *options, "--trainer.max_steps", steps)
        assert done.returncode == 0, done.stderr[-2000:]
    changed, whole = (read_checkpoint(newest_checkpoint(tmp_path / run))["state_dict"] for run in ("changed", "whole"))
    assert max(float((changed[name] - value).abs().max()) for name, value in whole.items()) < 1e-5
    refused = fit(tmp_path / "changed", *second, "--data.batch_size", "3", "--trainer.max_steps", "9")
    assert refused.returncode == 2
    assert "samples a step, now" in refused.stderr and "Traceback" not in refused.stderr
