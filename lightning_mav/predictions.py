"""What ``predict`` leaves behind: one file per held-out sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors.torch import save
from torch import Tensor

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.media import write_image, write_video

IMAGE_FPS = 8.0  # of videos whose stage has no frame rate


class PredictionWriter(BasePredictionWriter):
    """Writes videos as .mp4, images as .png and embeddings as .safetensors, named by the sample's index.

    Args:
        folder: Receives the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the samples of one batch."""
        rates = batch["fps"].tolist() if "fps" in batch else [IMAGE_FPS] * len(prediction)
        for index, sample, fps in zip(batch["index"].tolist(), prediction.float().cpu(), rates, strict=True):
            write_sample(sample, self.folder / f"{index:06d}", fps)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the samples lie."""
        if trainer.is_global_zero:
            print(f"samples in {self.folder}", flush=True)


def write_sample(sample: Tensor, stem: Path, fps: float) -> Path:
    """Write a video (3, F, H, W), an image (3, 1, H, W) or an embedding (D,) beside ``stem``; return the file."""
    kind: Literal[".mp4", ".png", ".safetensors"] = ".safetensors"
    if sample.ndim == 4:
        kind = ".mp4" if sample.shape[1] > 1 else ".png"
    path = stem.with_suffix(kind)
    if kind == ".mp4":
        write_video(sample, path, fps)
    elif kind == ".png":
        write_image(sample[:, 0], path)
    else:
        write_atomically(path, lambda file: file.write(save({"embedding": sample.contiguous()})))
    return path
