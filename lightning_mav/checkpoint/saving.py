"""The callback that every training run has: it saves, keeps the last checkpoints, and stops cleanly on a signal."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_mav.checkpoint.ema import own_share
from lightning_mav.checkpoint.io import remove_checkpoint
from lightning_mav.checkpoint.resolve import committed_checkpoints
from lightning_mav.errors import MachineError, NumericError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a user's, a scheduler's, and its warning before the limit


class Stopped(SystemExit):
    """Training ended by a signal, after the step that was under way; the code is 128 + the signal's number."""


class RunCheckpoint(Checkpoint):
    """Saves every ``every`` optimiser steps, at the end, on an exception and on SIGINT, SIGTERM or SIGUSR1.

    A signal to any rank takes effect when the optimiser step under way is done, on all ranks together; a second
    SIGINT at once.

    Args:
        folder: Receives step=NNNNNN.ckpt with its marker, and last.ckpt as a link to the newest.
        every: Optimiser steps between two checkpoints.
        keep: How many of the newest checkpoints stay.
    """

    def __init__(self, folder: str | Path, every: int, keep: int = 2) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self._signal = 0
        self._step = self._saved_step = -1
        self._at_boundary = False  # before training starts the weights may not be those to start from

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to listen for signals; the trainer restores the former handlers when it ends."""
        self._step = self._saved_step = trainer.global_step
        self._at_boundary = True
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._remember)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """From here to the end of the batch the weights are neither the old nor the new ones."""
        self._at_boundary = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """From here to the next optimiser step they are the new ones."""
        self._at_boundary = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save or stop between two optimiser steps, when everything that belongs to the last one is done."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._step % self.every == 0:
            self._save(trainer)
        if stop := self._agreed_signal(trainer):
            raise Stopped(128 + stop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last whole step, unless weights may be bad, nothing can be written or other ranks are missing."""
        alone = trainer.world_size == 1 or isinstance(exception, Stopped)
        hopeless = isinstance(exception, NumericError | MachineError)
        if trainer.state.fn == "fit" and self._at_boundary and alone and not hopeless:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set the loop's counters to the last optimiser step; inside an accumulation they are ahead of the weights."""
        loop = checkpoint["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]["current"]
        done = progress["processed"] - progress["processed"] % trainer.accumulate_grad_batches
        progress.update(ready=done, started=done, processed=done, completed=done)
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved_step or trainer.sanity_checking:
            return
        self._check_weights(trainer)
        began, path = time.perf_counter(), self.folder / f"step={trainer.global_step:06d}.ckpt"
        trainer.save_checkpoint(path)
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            self._point_last_to(path)
            for old in committed_checkpoints(self.folder)[: -self.keep]:
                remove_checkpoint(old)
        trainer.strategy.barrier("saved")  # no rank leaves while another still works on the folder
        for logger in trainer.loggers:
            logger.log_metrics({"train/checkpoint_seconds": time.perf_counter() - began}, trainer.global_step)

    def _check_weights(self, trainer: Trainer) -> None:
        """Refuse to save weights that the last step has ruined; the loss would show it only in the next one."""
        weights = [p for p in trainer.lightning_module.parameters() if p.is_floating_point()]
        sound = all(bool(torch.isfinite(own_share(p)).all()) for p in weights)
        if not trainer.strategy.reduce_boolean_decision(sound):
            raise NumericError(f"the weights are not finite after step {trainer.global_step}; lower model.lr")

    def _point_last_to(self, path: Path) -> None:
        link = self.folder / ".last"
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(path.name)
        os.replace(link, self.folder / "last.ckpt")

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _agreed_signal(self, trainer: Trainer) -> int:
        """Return the signal that any rank has received, 0 if none has."""
        if trainer.world_size == 1:
            return self._signal
        received = torch.tensor(self._signal, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))
