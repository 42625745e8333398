"""Runs of one or two tiny processes in which one named thing happens at one named step."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn
from torch.utils.data import Dataset

from lightning_mav.errors import DataError
from lightning_mav.models.base import Objective
from lightning_mav.stages.base import Stage
from lightning_mav.stages.data_module import StageDataModule

EVENT = "TOY_EVENT"
RANKS = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


class FaultModel(nn.Module):
    """Four weights to a side."""

    name, config, objective = "toy", None, Objective()

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(4, 4)

    def loss(self, batch, noise, timestep):
        return {"loss": (self.network(batch["video"]) - noise).pow(2).mean(1) + 0 * timestep}


class FaultStage(Stage):
    """A stage that does to itself, in the step and on the rank that the environment names, what it names."""

    def __init__(self, lr: float = 1e-2, **options: Any) -> None:
        super().__init__(FaultModel(), lr=lr, **options)

    def training_step(self, batch, batch_idx):
        event = json.loads(os.environ.get(EVENT, "{}"))
        if (event.get("step"), event.get("rank", 0)) == (self.global_step, self.global_rank):
            Path(self.trainer.default_root_dir, "happened").touch()
            happen(event["what"])
        return super().training_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["model"], checkpoint["skipped"] = "toy", self.finite.state()


def happen(what: str) -> None:
    """Receive a signal, or two, or want more memory than there is."""
    if what == "memory":
        torch.empty(1 << 46)
    else:
        for name in what.split():
            os.kill(os.getpid(), getattr(signal, name))


class FaultSamples(Dataset):
    """Seven samples; at one position of a run one is NaN, kills its reader or never comes."""

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self.at = fault, at

    def __len__(self) -> int:
        return 7

    def __getitem__(self, pair):
        index, position = pair
        video = torch.full((4,), index / 7)
        if position == self.at or (self.fault == "all" and position > self.at):
            video = self.faulty(video)
        return {"video": video, "index": index, "position": position}

    def faulty(self, video):
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "broken":
            raise DataError("a broken sample; remove it")
        return video * float("nan")


class FaultData(StageDataModule):
    """Has such samples."""

    def __init__(self, fault: str = "nan", at: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.fault, self.at = fault, at

    def dataset(self, split):
        return FaultSamples(self.fault, self.at)


CONFIG = {
    "model": {"class_path": "toys.FaultStage"},
    "data": {"class_path": "toys.FaultData", "init_args": {"batch_size": 2}},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 8, "enable_progress_bar": False}
    | {"enable_model_summary": False, "logger": False, "limit_val_batches": 0},
}


def words(run: Path, *options: object) -> list[str]:
    """Return the command that trains a toy in the folder ``run``."""
    config = run.with_name("toy.yaml")
    config.write_text(yaml.safe_dump(CONFIG))
    return ["fit", "--config", str(config), "--run", str(run), *map(str, options)]


def expect(what: str, step: int, rank: int = 0) -> None:
    """Let something happen to this process or one that it starts."""
    os.environ[EVENT] = event_of(what, step, rank)


def event_of(what: str, step: int, rank: int = 0) -> str:
    """Return what ``EVENT`` holds."""
    return json.dumps({"what": what, "step": step, "rank": rank})


def join(rank: int, port: int, *event: Any) -> None:
    """Become one of two ranks, as torchrun would start them."""
    if event:
        expect(*event)
    names = {"TORCHELASTIC_RUN_ID": "toy", "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2}
    names |= {"LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    rank_zero_only.rank = rank  # it was read when everything was imported


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def in_slurm(*event: Any) -> None:
    """Stand in the variables of a job of one task."""
    if event:
        expect(*event)
    names = {"NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_ID": 4711, "JOB_NAME": "toy", "NNODES": 1}
    os.environ |= {f"SLURM_{name}": str(value) for name, value in names.items()}


def at_step(step: int, action: Any) -> None:
    """Do something before the step after ``step`` whole ones."""
    train = FaultStage.training_step

    def both(self, batch, batch_idx):
        if self.global_step == step:
            action()
        return train(self, batch, batch_idx)

    FaultStage.training_step = both


def fill_at(folder: str, step: int) -> None:
    """Fill the disk that holds a folder, in the middle of training."""

    def fill() -> None:
        with open(f"{folder}/filler", "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))

    at_step(step, fill)


def ruin_weights() -> None:
    """Let every optimiser step end in a weight that is not finite, as an overflow in the update would."""
    take = FaultStage.optimizer_step

    def ruined(self, *args, **kwargs):
        take(self, *args, **kwargs)
        self.model.network.weight.data[0, 0] = float("inf")

    FaultStage.optimizer_step = ruined


def turn_back_the_clock(step: int) -> None:
    """Let the clock of the wall jump back by a year, in the middle of training."""
    now = time.time

    def jump() -> None:
        time.time = lambda: now() - 365 * 86400

    at_step(step, jump)
