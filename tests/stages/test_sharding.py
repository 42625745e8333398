"""FSDP2 with two ranks on the CPU: the same training as one process, and checkpoints that either reads."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, read_model
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.stages.base import Stage
from tests.ranks import in_ranks

SECTION = Path(__file__).parents[2] / "configs" / "trainer" / "fsdp2.yaml"
TWO = [f"--trainer={SECTION}", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true"]
FILE = "--trainer.strategy.init_args.save_distributed_checkpoint=false"


def losses_of(words):
    """Run a command; return its exit code and the loss of every step of this rank."""
    losses = []
    training_step = Stage.training_step

    def recorded(self, batch, batch_idx):
        losses.append(training_step(self, batch, batch_idx))
        return losses[-1]

    Stage.training_step = recorded
    code = main(words)
    return code, [float(loss.detach()) for loss in losses]


def alone(words):
    return in_ranks(losses_of, words, world=1)[0]


def together(words):
    """Run a command on two ranks; return the exit codes and the mean loss of every step."""
    (code, first), (other, second) = in_ranks(losses_of, words)
    return {code, other}, [(a + b) / 2 for a, b in zip(first, second, strict=True)]


def weights(run):
    return read_checkpoint(newest_checkpoint(run))["state_dict"]


def farthest(a, b):
    assert a.keys() == b.keys()
    return max(float((a[key].float() - b[key].float()).abs().max()) for key in a)


@pytest.fixture(scope="module")
def words(fit_command):
    """Return a function that gives the words of a fit without dropout, of four samples a step in all."""

    def build(run, steps, *options):
        fixed = ["--model.config.network.dropout=0", "--checkpoint_every=3", "--trainer.limit_val_batches=1"]
        size = 2 if TWO[0] in options else 4
        return fit_command(run, *fixed, f"--data.batch_size={size}", f"--trainer.max_steps={steps}", *options)

    return build


def test_two_ranks_train_as_one_process(words, tmp_path):
    code, expected = alone(words(tmp_path / "one", 5))
    assert code == 0 and len(expected) == 5
    codes, losses = together(words(tmp_path / "two", 5, *TWO))
    assert codes == {0}
    print(expected, losses, farthest(weights(tmp_path / "two"), weights(tmp_path / "one")))
    assert losses == pytest.approx(expected, abs=1e-5)
