"""The progress bar of training."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar without epochs and versions, which endless data and run folders do not have."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin to count."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("training")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the bar's line to what is said next."""
        if self.is_enabled:
            print(flush=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what stands at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}
