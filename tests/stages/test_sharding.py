"""FSDP2 with two ranks on the CPU: the same training as one process, and checkpoints that either reads."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import lightning_mav.cli  # noqa: F401  # imported once, for all ranks
from lightning_mav import strategies
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, read_model
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.stages import sharding
from lightning_mav.stages.base import Stage
from tests.ranks import in_ranks

SECTION = Path(__file__).parents[2] / "configs" / "trainer" / "fsdp2.yaml"
TWO = [f"--trainer={SECTION}", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true"]
FILE = "--trainer.strategy.init_args.save_distributed_checkpoint=false"


def outcomes(*commands):
    """Run commands one after the other; return of each its exit code and the loss of every step on this rank."""
    losses = []
    training_step = Stage.training_step

    def recorded(self, batch, batch_idx):
        losses.append(training_step(self, batch, batch_idx))
        return losses[-1]

    Stage.training_step = recorded
    found = []
    for words in commands:
        found.append((main([str(word) for word in words]), [float(loss.detach()) for loss in losses]))
        losses.clear()
    return found


def alone(*commands):
    """Run commands in one process; return the losses of each."""
    return agreed(in_ranks(outcomes, *commands, world=1))


def together(*commands):
    """Run commands on two ranks; return the losses of each, means over the ranks."""
    return agreed(in_ranks(outcomes, *commands))


def agreed(ranks):
    assert {code for rank in ranks for code, _ in rank} == {0}
    return [torch.tensor([losses for _, losses in command]).mean(0) for command in zip(*ranks, strict=True)]


def saved(run, step):
    return run / "checkpoints" / f"step={step:06d}.ckpt"


def farthest(a, b):
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def copy_of(run, step, folder):
    """Return a new run that has one checkpoint of another one, and may be resumed with another batch size."""
    (folder / "checkpoints").mkdir(parents=True)
    for path in saved(run, step).parent.glob(f"{saved(run, step).name}*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, folder / "checkpoints" / path.name)
    return folder


@pytest.fixture(scope="module")
def words(fit_command):
    """Return a function that gives the words of a fit without dropout, of four samples a step in all."""

    def build(run, steps, *options):
        fixed = ["--model.config.network.dropout=0", "--checkpoint_every=3", "--trainer.limit_val_batches=1"]
        size = 2 if TWO[0] in options else 4
        return fit_command(run, *fixed, f"--data.batch_size={size}", f"--trainer.max_steps={steps}", *options)

    return build


@pytest.fixture(scope="module")
def runs(words, tmp_path_factory):
    """The same five steps in one process; on two ranks by folder or file, stopped after three; and across the two."""
    folder = tmp_path_factory.mktemp("runs")
    one, shards, file, from_one = (folder / name for name in ("one", "shards", "file", "from_one"))
    losses = {"one": alone(words(one, 5))[0]}
    copy_of(one, 3, from_one)
    parts = together(
        words(shards, 3, *TWO),
        words(shards, 5, *TWO),
        words(file, 3, *TWO, FILE),
        words(file, 5, *TWO, FILE),
        words(from_one, 5, *TWO),
    )
    losses |= {"shards": torch.cat(parts[:2]), "file": torch.cat(parts[2:4]), "from_one": parts[4]}
    from_shards = copy_of(shards, 3, folder / "from_shards")
    losses["from_shards"] = alone(words(from_shards, 5))[0]
    return folder, losses


@pytest.mark.parametrize("name", ["shards", "file", "from_one", "from_shards"])
def test_two_ranks_train_as_one_process_and_each_resumes_the_others(runs, name):
    folder, losses = runs
    expected = losses["one"][-len(losses[name]) :]
    assert (losses[name] - expected).abs().max() < 1e-5
    states = [read_checkpoint(saved(folder / run, 5)) for run in ("one", name)]
    print(name, farthest(*(s["state_dict"] for s in states)))
    assert farthest(*(state["state_dict"] for state in states)) < 1e-3  # Adam turns rounding into steps
