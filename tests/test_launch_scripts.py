"""The scripts of docs/ start trainings with a valid configuration, and SLURM gets a job again when its time is over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SRUN = 'while [ "$1" != python ]; do shift; done; exec "$@" --print_config'
TORCHRUN = 'while [ "$1" != lightning_mav ]; do shift; done; exec python -m "$@" --print_config'
SLURM = {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "6", "SLURM_JOB_ID": "17"}


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs a script with programs of the cluster's replaced by lines of bash."""

    def run(script, **programs):
        for name, line in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
            (tmp_path / name).chmod(0o755)
        path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
        command = ["bash", str(ROOT / "docs" / script)]
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | SLURM | {"PATH": path}, capture_output=True, text=True
        )

    return run


@pytest.mark.parametrize(
    ("script", "programs", "trainer"),
    [
        ("slurm.sh", {"srun": SRUN}, {"num_nodes": 2, "devices": "4"}),
        ("torchrun.sh", {"torchrun": TORCHRUN}, {"devices": "8", "strategy": "ddp"}),
    ],
)
def test_the_training_that_is_started_has_a_valid_configuration(launch, script, programs, trainer):
    done = launch(script, **programs)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert trainer.items() <= config["trainer"].items() and config["run"] == "runs/decoder_video"
    assert config["data"]["init_args"]["num_workers"] > 0


@pytest.mark.parametrize(("code", "again"), [(138, ["requeue 17"]), (0, []), (3, [])])
def test_slurm_queues_a_job_again_if_its_time_was_over(launch, tmp_path, code, again):
    done = launch("slurm.sh", srun=f"exit {code}", scontrol=f'echo "$@" >> {tmp_path}/queued')
    assert done.returncode == code
    assert ((tmp_path / "queued").read_text().splitlines() if again else []) == again
    assert (tmp_path / "queued").exists() == bool(again)
