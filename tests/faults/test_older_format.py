"""Row 55: a run whose checkpoints were written before they had markers, or by a version to come."""

import re
import subprocess
from pathlib import Path

import pytest

from lightning_mav.__main__ import main


@pytest.mark.row(55)
def test_a_run_without_markers_is_refused_with_the_command_that_lets_it_go_on(fit_command, refused, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(fit_command(run, "--trainer.max_steps", "1")) == 0
    for marker in (run / "checkpoints").glob("*.sha256"):
        marker.unlink()
    line = refused(fit_command(run), 4, "step=000001.ckpt: has no .sha256 beside it")
    refused(["export", "--model", run, "--out", tmp_path / "out"], 4, "has no .sha256 beside it")
    subprocess.run(re.search(r"cd .*", line)[0], shell=True, check=True)
    assert main(fit_command(run, "--trainer.max_steps", "1")) == 0
    assert "nothing to do: step 1 >= 1" in capsys.readouterr().out
    assert Path(run, "checkpoints", "step=000001.ckpt").is_file()
