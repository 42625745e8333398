"""What safety costs: CPU time of a training step as ``fit`` takes it, over one of a plain Trainer on the same stage.

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/safety.py [blocks] [steps a block]

``fit`` saves once a block, with checksum and fsync; the plain Trainer saves nothing and has no callback but the clock.
Each trains in a process of its own, a block in turn, and counts that process's CPU time.
"""

import sys
import tempfile
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_mav.__main__ import main as command
from lightning_mav.checkpoint.config import to_plain
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.stages import SpatialSRDataModule, SpatialSRStage

NETWORK = UNetConfig(
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_downsamples=(),
    mid_attention=False,
    norm_groups=8,
    dropout=0.1,
    image_embedding_dim=None,
    context_dim=None,
)
CONFIG = SuperResolutionConfig(NETWORK, scale=3)
DATA: dict[str, Any] = {"scale": 3, "size": 24, "batch_size": 4}
TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


class Clock(Callback):
    """Trains a block of steps whenever it is told to, and says how much CPU time that took."""

    connection: Connection
    block: int

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = 0
        self.connection.send(None)
        self.wait()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step + self.block:
            self.step = trainer.global_step
            self.connection.send(process_time() - self.began)
            self.wait()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.connection.send(process_time() - self.began)

    def wait(self) -> None:
        self.connection.recv()
        self.began = process_time()


def train_plainly(steps: int, folder: Path) -> None:
    """Train as Lightning does by itself, without saving."""
    plain: dict[str, Any] = {"enable_checkpointing": False, "use_distributed_sampler": False}
    trainer = Trainer(max_steps=steps, default_root_dir=folder, callbacks=[Clock()], **plain, **TRAINER)
    trainer.fit(SpatialSRStage(CONFIG), SpatialSRDataModule(**DATA))


def train_safely(steps: int, folder: Path) -> None:
    """Train by the command line."""
    config = {
        "checkpoint_every": Clock.block,
        "model": {"class_path": "lightning_mav.stages.SpatialSRStage", "init_args": {"config": to_plain(CONFIG)}},
        "data": {"class_path": "lightning_mav.stages.SpatialSRDataModule", "init_args": DATA},
        "trainer": TRAINER | {"max_steps": steps, "callbacks": [{"class_path": "__main__.Clock"}]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert command(["fit", "--config", str(folder / "config.yaml"), "--run", str(folder / "run")]) == 0


def train(name: str, connection: Connection, steps: int, block: int, folder: Path) -> None:
    """Train in a process of its own."""
    torch.set_num_threads(1)
    Clock.connection, Clock.block = connection, block
    {"plain": train_plainly, "safe": train_safely}[name](steps, folder)


def main(blocks: int = 17, block: int = 100) -> None:
    """Print the median ratio, without the first and the last block, beside which something else goes on."""
    context, ours = get_context("spawn"), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "safe"):
            ours[name], theirs = context.Pipe()
            work = (name, theirs, (blocks + 2) * block, block, Path(folder))
            context.Process(target=train, args=work, daemon=True).start()
            ours[name].recv()
        seconds = [[turn(connection) for connection in ours.values()] for _ in range(blocks + 2)][1:-1]
        for process in active_children():
            process.join()
    ratio = median(safe / plain for plain, safe in seconds)
    step = 1000 * median(plain for plain, _ in seconds) / block
    print(f"{blocks} blocks of {block} steps, one save a block: {ratio:.3f} x the CPU time of {step:.1f} ms a step")


def turn(connection: Connection) -> float:
    """Let a training have its turn, and return what it took."""
    connection.send(None)
    seconds: float = connection.recv()
    return seconds


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
