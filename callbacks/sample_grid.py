"""Samples during training, as an animation and a contact sheet."""

from pathlib import Path

from einops import rearrange
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.periodic import Periodic, samples_of
from lightning_mav.logs import forgiven
from lightning_mav.media import contact_sheet, magnified, write_sheet, write_video
from lightning_mav.stages.base import Stage


class SampleGrid(Periodic):
    """Draws samples with the averaged weights, always for the same held-out videos or images.

    Writes samples/step=NNNNNN.webp (a row per sample: the held-out video left, what the model makes right) and a
    contact sheet samples/step=NNNNNN.png (two rows per sample) into the run folder, and the sheet into TensorBoard.

    Args:
        every_n_steps: Optimiser steps between two drawings.
        num_samples: Samples to draw.
    """

    def __init__(self, every_n_steps: int = 1000, num_samples: int = 4) -> None:
        super().__init__(every_n_steps, num_samples)

    def act(self, trainer: Trainer, stage: Stage) -> None:
        """Draw."""
        samples = samples_of(trainer, stage, self.batch)
        if not trainer.is_global_zero:
            return
        real = self.batch["video"].float().cpu()
        fps = float(self.batch["fps"].float().mean()) if "fps" in self.batch else 1.0
        path = Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step:06d}"
        grid = rearrange([magnified(real), magnified(samples)], "side b c f h w -> c f (b h) (side w)")
        rows = [video for pair in zip(real, samples, strict=True) for video in pair]
        write_video(grid, path.with_name(f"{path.name}.webp"), fps)
        write_sheet(rows, path.with_name(f"{path.name}.png"))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                with forgiven(type(logger).__name__):
                    logger.experiment.add_image("samples", contact_sheet(rows), trainer.global_step, dataformats="HWC")
