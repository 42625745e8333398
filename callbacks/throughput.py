"""How fast training goes, and how long it waits for data."""

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from lightning_mav.errors import ConfigError


class Throughput(Callback):
    """Logs the speed of training, validation aside.

    ``train/samples_per_second``; ``train/frames_per_second``, an image counting as one frame; ``train/data_wait``, the
    share of wall time from the end of one step until the next batch has been read (what the data module then computes
    on the device, CLIP embeddings for example, belongs to the step); ``train/tflops_per_second`` of one device, counted
    in the first batch: matrix products, convolutions and attention, forward and backward, recomputed activations
    included.

    Args:
        every_n_steps: Optimiser steps between two reports, each over the time since the one before.
        peak_tflops: What the device can do at the run's precision; ``train/mfu`` is the share of it that is used.
    """

    def __init__(self, every_n_steps: int = 50, peak_tflops: float | None = None) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"Throughput: every_n_steps {every_n_steps} must be at least 1")
        if peak_tflops is not None and not peak_tflops > 0:
            raise ConfigError(f"Throughput: peak_tflops {peak_tflops} must be more than 0")
        self.every_n_steps, self.peak_tflops = every_n_steps, peak_tflops
        self.flops = 0
        self.counter: FlopCounterMode | None = None
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
        """Add the wait; count the operations of the first batch."""
        arrived = getattr(trainer.datamodule, "arrived", 0.0)  # type: ignore[attr-defined]
        # A data module of another kind says nothing, and all until now counts.
        self.waited += (arrived if arrived >= self.ended else perf_counter()) - self.ended
        if not self.flops:
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch; report when an optimiser step that is due has been taken."""
        self._close_counter()
        self.ended = perf_counter()
        self.batches += 1
        self.samples += len(batch["index"])
        self.frames += len(batch["index"]) * (batch["video"].shape[2] if "video" in batch else 1)
        if trainer.global_step % self.every_n_steps == 0 and trainer.global_step > self.reported:
            self._report(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind that counts."""
        self._close_counter()

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
        speed["train/tflops_per_second"] = self.batches * self.flops / 1e12 / seconds
        if self.peak_tflops:
            speed["train/mfu"] = speed["train/tflops_per_second"] / self.peak_tflops
        for logger in trainer.loggers:
            logger.log_metrics(speed, trainer.global_step)
        self.reported, self.began = trainer.global_step, self.ended
        self._reset()

    def _close_counter(self) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.flops, self.counter = self.counter.get_total_flops(), None

    def _reset(self) -> None:
        self.batches = self.samples = self.frames = 0
        self.waited = 0.0
