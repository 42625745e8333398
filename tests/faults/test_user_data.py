"""Row 24: a user's own data set, and what it can give wrongly; the sample is named, with what is expected."""

from pathlib import Path

import pytest

from lightning_mav.__main__ import main
from tests.faults.tiers import tiered

MINE = """
import torch
from lightning_mav.stages import DecoderDataModule


class Samples(torch.utils.data.Dataset):
    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 5

    def __getitem__(self, pair):
        index, position = pair
        video = torch.full((3, 3, 8, 8), index / 5)
        faults = {
            "uint8": lambda: video.mul(255).to(torch.uint8),
            "frames first": lambda: video[:, :2].transpose(0, 1),
            "gray": lambda: video[:1],
            "larger": lambda: video.repeat(1, 1, 2, 2),
            "0 to 255": lambda: video * 255 + 1,
            "not finite": lambda: video / 0,
            "uneven": lambda: video[:, : 1 + index % 2],
            "an array": lambda: video.double().numpy()[:, :, : 4 + index % 2],
            "text": lambda: "frames",
        }
        sample = {"video": faults.get(self.fault, lambda: video)(), "fps": 8.0, "index": index, "position": position}
        if self.fault == "a list":
            return [video, index, position]
        return {name: value for name, value in sample.items() if self.fault != f"no {name}"}


class Mine(DecoderDataModule):
    def __init__(self, fault: str = "none", **options):
        super().__init__(**options)
        self.fault = fault

    def dataset(self, split):
        return Samples(self.fault)
"""
FAULTS = {
    "uint8": ("video of sample", "expected float (B, 3, F, 8, 8), got uint8 (2, 3, 3, 8, 8)"),
    "frames first": ("video of sample", "expected float (B, 3, F, 8, 8), got float32 (2, 2, 3, 8, 8)"),
    "gray": ("video of sample", "got float32 (2, 1, 3, 8, 8)"),
    "larger": ("video of sample", "got float32 (2, 3, 3, 16, 16)"),
    "0 to 255": ("video of sample", "expected values in [-1, 1], got"),
    "not finite": ("video of sample", "expected values in [-1, 1], got"),
    "uneven": ("video of sample", "make them alike"),
    "an array": ("video of sample", "make them alike"),
    "text": ("video of sample", "got list"),
    "a list": ("a sample is list", "a dictionary with index, position"),
    "no index": ("a sample is dict", "a dictionary with index, position"),
    "no video": ("neither video nor image",),
}


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """Put the user's module where the command line finds it."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", tiered(FAULTS, "uneven"))
def test_what_a_data_set_gives_wrongly_is_named(fit_command, refused, fault):
    words = fit_command("run", "--data", "mine.Mine", "--data.fault", fault, "--trainer.num_sanity_val_steps", 0)
    refused(words, 3, *FAULTS[fault])


@pytest.mark.row(24)
@pytest.mark.full
def test_what_it_gives_wrongly_in_a_worker_is_named_too(fit_command, refused, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{Path(__file__).parents[2]}")
    refused(fit_command("run", "--data", "mine.Mine", "--data.fault", "uneven", "--data.num_workers", 1), 3, "alike")


@pytest.mark.row(24)
def test_a_data_set_that_is_right_trains(fit_command):
    assert main(fit_command("run", "--data", "mine.Mine", "--trainer.max_steps", "1")) == 0
