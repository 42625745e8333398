"""What safety costs: CPU time of a training step as ``fit`` takes it, over one of a plain Trainer on the same stage.

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/safety.py [blocks] [steps a block]

``fit`` saves once a block, with checksum and fsync; the plain Trainer saves nothing and has no callback but the clock.
Both train in one process, a block each in turn; the CPU time of the whole process is counted.
"""

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Semaphore, Thread
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
DATA = {"scale": 3, "size": 24, "batch_size": 4}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


@dataclass
class Turns:
    """Two trainings that take turns.

    Attributes:
        block: Steps of a turn.
        plain: Whose turn it is; at first neither's.
        safe: Likewise.
        arrived: The plain one is set up.
        seconds: CPU time of the turns of each.
    """

    block: int = 100
    plain: Semaphore = field(default_factory=lambda: Semaphore(0))
    safe: Semaphore = field(default_factory=lambda: Semaphore(1))
    arrived: Semaphore = field(default_factory=lambda: Semaphore(0))
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "safe": []})


TURNS = Turns()


class Clock(Callback):
    """Ends a turn after each block of steps."""

    name, other = "safe", "plain"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = 0
        TURNS.arrived.release()
        self.wait()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step + TURNS.block:
            self.step = trainer.global_step
            self.pass_on()
            self.wait()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pass_on()

    def wait(self) -> None:
        getattr(TURNS, self.name).acquire()
        self.began = process_time()

    def pass_on(self) -> None:
        TURNS.seconds[self.name].append(process_time() - self.began)
        getattr(TURNS, self.other).release()


class PlainClock(Clock):
    """That of the plain training."""

    name, other = "plain", "safe"


def train_plainly(steps: int, folder: Path) -> None:
    """Train as Lightning does by itself, without saving."""
    plain: dict[str, Any] = {"enable_checkpointing": False, "use_distributed_sampler": False}
    trainer = Trainer(max_steps=steps, default_root_dir=folder, callbacks=[PlainClock()], **plain, **TRAINER)
    trainer.fit(SpatialSRStage(CONFIG), SpatialSRDataModule(**DATA))


def train_safely(steps: int, folder: Path) -> None:
    """Train by the command line."""
    config = {
        "checkpoint_every": TURNS.block,
        "model": {"class_path": "lightning_mav.stages.SpatialSRStage", "init_args": {"config": to_plain(CONFIG)}},
        "data": {"class_path": "lightning_mav.stages.SpatialSRDataModule", "init_args": DATA},
        "trainer": TRAINER | {"max_steps": steps, "callbacks": [{"class_path": "__main__.Clock"}]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert command(["fit", "--config", str(folder / "config.yaml"), "--run", str(folder / "run")]) == 0


def main(blocks: int = 17, block: int = 100) -> None:
    """Print the median ratio, without the first and the last block, beside which something else goes on."""
    torch.set_num_threads(1)
    TURNS.block, steps = block, (blocks + 2) * block
    with tempfile.TemporaryDirectory() as folder:
        plain = Thread(target=train_plainly, args=(steps, Path(folder)), daemon=True)
        plain.start()
        TURNS.arrived.acquire()
        train_safely(steps, Path(folder))
        plain.join()
    safe, plain_seconds = (TURNS.seconds[name][1:-1] for name in ("safe", "plain"))
    ratio = median(one / other for one, other in zip(safe, plain_seconds, strict=True))
    step = 1000 * median(plain_seconds) / block
    print(f"{blocks} blocks of {block} steps, one save a block: {ratio:.3f} x the CPU time of {step:.1f} ms a step")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
