"""A run goes on with another number of processes: the same samples and noise, and so nearly the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint

TWO = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "2"]
ONE = ["--trainer.devices", "1", "--data.batch_size", "4"]
ALIKE = ["--model.config.network.dropout", "0", "--trainer.limit_val_batches", "0", "--model.lr", "1e-4"]


@pytest.mark.full
@pytest.mark.row(56)
@pytest.mark.timeout(600)
def test_a_run_goes_on_with_two_processes_and_with_one_again(fit_command, tmp_path, capsys):
    def words(run, steps, *options):
        return fit_command(tmp_path / run, *ALIKE, "--trainer.max_steps", steps, *options)

    assert main(words("changed", 2, *ONE)) == 0
    settings = {"cwd": Path(__file__).parents[2], "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    command = [sys.executable, "-m", "lightning_mav", *words("changed", 4, *TWO)]
    done = subprocess.run(command, **settings, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and "resuming" in done.stdout, done.stderr[-2000:]
    assert main(words("changed", 9, "--data.batch_size", 2)) == 2
    assert "data.batch_size 2 on 2 devices was 4 samples a step, now 2; set --data" in capsys.readouterr().err
    assert main(words("changed", 6, *ONE)) == main(words("whole", 6, *ONE)) == 0
    changed, whole = (read_checkpoint(newest_checkpoint(tmp_path / run)) for run in ("changed", "whole"))
    assert changed["global_step"] == whole["global_step"] == 6
    pairs = [(changed["state_dict"][name], value) for name, value in whole["state_dict"].items()]
    assert max(float((one - other).abs().max()) for one, other in pairs) < 1e-5
