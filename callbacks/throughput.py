"""How fast training goes, and how long it waits for data."""

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_mav.errors import ConfigError


class Throughput(Callback):
    """Logs the speed of training, validation aside.

    ``train/samples_per_second``; ``train/frames_per_second``, an image counting as one frame; ``train/data_wait``, the
    share of wall time from the end of one step to the start of the next: reading the batch, moving it to the device,
    and what the data module adds to it there.

    Args:
        every_n_steps: Optimiser steps between two reports, each over the time since the one before.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"Throughput: every_n_steps {every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self.reported = 0
        self.began = self.ended = self.paused = 0.0
        self._reset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move behind the other callbacks, so that their work is not taken for waiting."""
        trainer.callbacks = [*(one for one in trainer.callbacks if one is not self), self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count."""
        self.reported = trainer.global_step
        self.began = self.ended = perf_counter()
        self._reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop waiting."""
        self.waited += perf_counter() - self.ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch; report when an optimiser step that is due has been taken."""
        self.ended = perf_counter()
        self.samples += len(batch["index"])
        self.frames += len(batch["index"]) * (batch["video"].shape[2] if "video" in batch else 1)
        if trainer.global_step % self.every_n_steps == 0 and trainer.global_step > self.reported:
            self._report(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.paused = perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        pause = perf_counter() - self.paused
        self.began, self.ended = self.began + pause, self.ended + pause

    def _report(self, trainer: Trainer) -> None:
        seconds = self.ended - self.began
        speed = {
            "train/samples_per_second": self.samples * trainer.world_size / seconds,
            "train/frames_per_second": self.frames * trainer.world_size / seconds,
            "train/data_wait": self.waited / seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(speed, trainer.global_step)
        self.reported, self.began = trainer.global_step, self.ended
        self._reset()

    def _reset(self) -> None:
        self.samples = self.frames = 0
        self.waited = 0.0
