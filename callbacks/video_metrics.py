"""FVD and CLIPSIM of a few videos during training: too few for a number to publish, enough to see a trend."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch import LightningModule, Trainer

from callbacks.periodic import Periodic, samples_of, takes_part
from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.data.batches import Batch
from lightning_mav.data.transforms import quantise
from lightning_mav.errors import ConfigError
from lightning_mav.metrics.extractors import Extractor
from lightning_mav.metrics.pretrained import i3d
from lightning_mav.metrics.random_extractor import random_extractor
from lightning_mav.metrics.video import ClipSimilarity, FrechetVideoDistance
from lightning_mav.stages.base import Stage


class VideoMetrics(Periodic):
    """Logs ``fvd_N`` (N videos against the held-out ones they belong to) and ``clipsim``, with the averaged weights.

    The distance is biased by its small N, and only comparable within a run. For CLIPSIM the decoder is given the text
    embedding of prompts in place of an image embedding, as no prior is at hand.

    Args:
        every_n_steps: Optimiser steps between two measurements.
        num_samples: N.
        batch_size: Videos made at once.
        extractor: "random" needs no file; "i3d" is FVD's own.
        weights: I3D's file, if it lies in none of the usual places.
        clip: The CLIP that the stage was trained with; None leaves CLIPSIM out.
        prompts: What to ask for.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        num_samples: int = 64,
        batch_size: int = 8,
        extractor: Literal["random", "i3d"] = "random",
        weights: str | None = None,
        clip: str | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        super().__init__(every_n_steps, num_samples)
        if bool(clip) != bool(prompts):
            raise ConfigError("VideoMetrics: clip and prompts go together; give both for CLIPSIM, or neither")
        if len(prompts) > num_samples:
            raise ConfigError(f"VideoMetrics: {len(prompts)} prompts, but num_samples {num_samples}; raise num_samples")
        self.batch_size, self.prompts = batch_size, list(prompts)
        self._extractor: Extractor = i3d(weights) if extractor == "i3d" else random_extractor()
        self._clip = load_clip(clip) if clip else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the held-out videos.

        Raises:
            ConfigError: The stage makes no videos.
        """
        super().on_train_start(trainer, pl_module)
        if takes_part(trainer) and ("fps" not in self.batch or self.batch["video"].shape[2] < 2):
            raise ConfigError(
                f"trainer.callbacks: {type(pl_module).__name__} makes no videos here; remove VideoMetrics from the list"
            )

    def act(self, trainer: Trainer, stage: Stage) -> None:
        """Measure and log."""
        distance = FrechetVideoDistance(self._extractor, sync_on_compute=False)  # no other rank has other videos
        for part in self._parts(len(self.batch["video"])):
            batch = {name: values[part] for name, values in self.batch.items()}
            distance.update(quantise(batch["video"].float().cpu()), real=True)
            distance.update(quantise(samples_of(trainer, stage, batch)), real=False)
        found = {f"fvd_{self.num_samples}": float(distance.compute())}
        if self._clip is not None:
            found["clipsim"] = self._clip_similarity(trainer, stage)
        for logger in trainer.loggers:
            logger.log_metrics(found, trainer.global_step)

    def _clip_similarity(self, trainer: Trainer, stage: Stage) -> float:
        assert self._clip is not None
        similarity = ClipSimilarity(self._clip, sync_on_compute=False)
        for part in self._parts(len(self.prompts)):
            asked: Batch = {name: values[part] for name, values in self.batch.items()}
            embedding = self._clip.encode_text(self.prompts[part]).embedding
            asked["image_embedding"] = embedding.to(asked["image_embedding"])
            similarity.update(quantise(samples_of(trainer, stage, asked)), self.prompts[part])
        return float(similarity.compute())

    def _parts(self, num: int) -> list[slice]:
        return [slice(start, min(start + self.batch_size, num)) for start in range(0, num, self.batch_size)]
