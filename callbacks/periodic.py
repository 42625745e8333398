"""What callbacks share that sample every few steps, always for the same held-out videos or images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from lightning_mav.data.batches import Batch
from lightning_mav.errors import ConfigError
from lightning_mav.stages.base import Stage


class Periodic(Callback):
    """Calls ``act`` after every n-th optimiser step; training goes on bit for bit as without it.

    It is called on the first rank; for a model that is sharded on all of them, for only together can they compute.

    Args:
        every_n_steps: Optimiser steps between two calls.
        num_samples: Held-out samples in ``batch``.
    """

    def __init__(self, every_n_steps: int, num_samples: int) -> None:
        if every_n_steps < 1 or num_samples < 1:
            raise ConfigError(
                f"{type(self).__name__}: every_n_steps {every_n_steps} and num_samples {num_samples} must be at least 1"
            )
        self.every_n_steps, self.num_samples = every_n_steps, num_samples
        self.done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the held-out batch.

        Raises:
            ConfigError: The stage makes no pictures.
        """
        self.done = trainer.global_step
        if takes_part(trainer):
            self.batch = held_out(trainer, pl_module, self.num_samples)
            if "video" not in self.batch:
                name = type(self).__name__
                raise ConfigError(
                    f"trainer.callbacks: {type(pl_module).__name__} makes no pictures; remove {name} from the list"
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act when an optimiser step that is due has been taken."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 and step > self.done
        if due and takes_part(trainer):
            assert isinstance(pl_module, Stage)
            self.act(trainer, pl_module)
        self.done = step if due else self.done

    def act(self, trainer: Trainer, stage: Stage) -> None:
        """Do what the callback is for."""
        raise NotImplementedError


def takes_part(trainer: Trainer) -> bool:
    """Tell whether this rank computes what the callback is for."""
    return trainer.is_global_zero or isinstance(trainer.strategy, ModelParallelStrategy)


def samples_of(trainer: Trainer, stage: Stage, batch: Batch) -> Tensor:
    """Return what the averaged weights make of a batch, float32 (B, 3, F, H, W) on the CPU."""
    with evaluating(stage), torch.no_grad(), trainer.precision_plugin.forward_context():
        return stage.predict_step(batch, 0).float().cpu()


def held_out(trainer: Trainer, stage: LightningModule, num: int) -> Batch:
    """Return the first ``num`` held-out samples, as a validation step would get them.

    No DataLoader is made for it: that would draw from torch's global generator.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batch = data.on_before_batch_transfer(data.held_out(num), 0)
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
