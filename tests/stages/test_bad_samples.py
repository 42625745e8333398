"""A run over data of which a part is bad: it stops, or it goes on and ends as one that was never interrupted."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint


def rows(listed):
    return [json.loads(line) for line in listed.read_text().splitlines()]


@pytest.fixture
def videos(video_folder, tmp_path):
    """Six videos of which one is cut."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(6):
        shutil.copy(video_folder / "a.mp4", folder / f"{i}.mp4")
    (folder / "4.mp4").write_bytes((folder / "4.mp4").read_bytes()[:700])
    return folder


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_run_goes_on_to_the_end_and_resumes_bit_for_bit(fit, videos, tmp_path, workers, capsys):
    options = ["--data.source", videos, "--trainer.max_steps"]
    skip = ["--data.on_error", "skip", "--data.num_workers", workers]
    assert fit(tmp_path / "a", *options, 6) == 3
    assert "4.mp4" in capsys.readouterr().err.splitlines()[-1]
    stopped = newest_checkpoint(tmp_path / "a")
    assert fit(tmp_path / "a", *options, 6, *skip) == 0  # what stopped may go on
    assert stopped is None or "resuming" in capsys.readouterr().out
    assert fit(tmp_path / "b", *options, 6, "--data.on_error", "skip") == 0
    one, other = (read_checkpoint(newest_checkpoint(tmp_path / run))["state_dict"] for run in "ab")
    assert all(value.equal(other[name]) for name, value in one.items())
    assert {Path(row["name"]).name for row in rows(tmp_path / "a" / "bad_samples.jsonl")} == {"4.mp4"}
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["data"]["init_args"]["on_error"] == "skip"


def test_a_run_over_its_budget_ends_in_3_and_one_line(fit, videos, tmp_path, capsys):
    assert fit(tmp_path / "run", "--data.source", videos, "--data.on_error", "skip", "--data.skip_budget", 0) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "bad_samples.jsonl: 1 of" in error and "data.skip_budget is 0" in error and "4.mp4" in error
    assert fit(tmp_path / "other", "--data.skip_budget", -1) == 2
    assert "data.skip_budget: expected at least 0" in capsys.readouterr().err
