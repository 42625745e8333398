"""Samples during training, as an animation and a contact sheet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import default_collate

from lightning_mav.errors import ConfigError
from lightning_mav.media import contact_sheet, magnified, write_sheet, write_video
from lightning_mav.stages.base import Batch, Stage


class SampleGrid(Callback):
    """Draws samples with the averaged weights, always for the same held-out videos or images.

    Writes samples/step=NNNNNN.webp (a row per sample: the held-out video left, what the model makes right) and a
    contact sheet samples/step=NNNNNN.png (two rows per sample) into the run folder, and the sheet into TensorBoard.
    Training goes on bit for bit as it would without; not for models that are sharded over ranks.

    Args:
        every_n_steps: Optimiser steps between two drawings.
        num_samples: Samples to draw.
    """

    def __init__(self, every_n_steps: int = 1000, num_samples: int = 4) -> None:
        if every_n_steps < 1 or num_samples < 1:
            raise ConfigError(
                f"SampleGrid: every_n_steps {every_n_steps} and num_samples {num_samples} must be at least 1"
            )
        self.every_n_steps, self.num_samples = every_n_steps, num_samples
        self.drawn = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the held-out batch.

        Raises:
            ConfigError: The stage makes no pictures.
        """
        self.drawn = trainer.global_step
        if trainer.is_global_zero:
            self.batch = held_out(trainer, pl_module, self.num_samples)
            if "video" not in self.batch:
                raise ConfigError(
                    f"trainer.callbacks: {type(pl_module).__name__} makes no pictures; remove SampleGrid from the list"
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when an optimiser step that is due has been taken."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 and step > self.drawn
        if due and trainer.is_global_zero:
            assert isinstance(pl_module, Stage)
            self._draw(trainer, pl_module)
        self.drawn = step if due else self.drawn

    def _draw(self, trainer: Trainer, stage: Stage) -> None:
        with evaluating(stage), torch.no_grad(), trainer.precision_plugin.forward_context():
            samples = stage.predict_step(self.batch, 0).float().cpu()
        real = self.batch["video"].float().cpu()
        fps = float(self.batch["fps"].float().mean()) if "fps" in self.batch else 1.0
        path = Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step:06d}"
        grid = rearrange([magnified(real), magnified(samples)], "side b c f h w -> c f (b h) (side w)")
        rows = [video for pair in zip(real, samples, strict=True) for video in pair]
        write_video(grid, path.with_name(f"{path.name}.webp"), fps)
        write_sheet(rows, path.with_name(f"{path.name}.png"))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", contact_sheet(rows), trainer.global_step, dataformats="HWC")


def held_out(trainer: Trainer, stage: LightningModule, num: int) -> Batch:
    """Return the first ``num`` held-out samples, as a validation step would get them.

    No DataLoader is made for it: that would draw from torch's global generator.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    dataset = data.dataset("val")
    batch = default_collate([dataset[i, i] for i in range(min(num, len(dataset)))])
    batch = data.transfer_batch_to_device(batch, stage.device, 0)
    trainer.validating = True  # so that nothing is cropped or degraded at random
    try:
        prepared: Batch = data.on_after_batch_transfer(batch, 0)
    finally:
        trainer.training = True
    return prepared


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Let all parts of ``module`` evaluate inside the ``with`` block, and be as they were after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
