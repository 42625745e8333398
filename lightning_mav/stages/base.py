"""What every stage has in common: the step, keyed noise, the averaged weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_mav.checkpoint.ema import Ema
from lightning_mav.checkpoint.models import describe, hand_over
from lightning_mav.data.batches import Batch
from lightning_mav.diffusion.noise import NoiseStream, keyed_noise
from lightning_mav.errors import ConfigError
from lightning_mav.networks.pseudo3d import is_dirac, is_temporal
from lightning_mav.seeding import generator, hashed_seed
from lightning_mav.stages.finite import FiniteSteps, OnNan

TIMESTEP_BINS = 5


class Stage(LightningModule):
    """Trains one model; a subclass says which, and how a batch becomes its condition.

    Args:
        model: What is trained.
        lr: Peak learning rate of AdamW.
        weight_decay: Of matrices and spatial kernels; biases, norms and the temporal Dirac kernels have none.
        beta2: Decay of AdamW's second moment.
        warmup_steps: Optimiser steps over which the learning rate rises to ``lr``.
        schedule_steps: Optimiser step at which the learning rate reaches zero; None keeps it constant. It is the
            schedule's own length, so that a longer ``max_steps`` does not change a resumed run.
        decay_steps: Length of the linear fall to zero before ``schedule_steps``.
        ema_decay: Limit of the decay of the averaged weights.
        trainable: ``temporal`` trains only what a 2D checkpoint lacks; the paper fine-tunes ``all``.
        init_from: Run folder, checkpoint or model folder whose weights training starts from; a 2D network inflates.
        on_nan: A step whose loss or gradients are not finite ends the run (``stop``) or is left out (``skip``):
            weights, moments and averages stay as they are, and the next samples follow.
        max_skipped: Steps left out in a row, after which ``skip`` stops as well.
        seed: Of timesteps, noise and dropped conditions.
    """

    model: Any
    takes_frames = False  # whether batches hold images or videos, which are then compared with data.size

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1.2e-4,
        weight_decay: float = 0.0,
        beta2: float = 0.999,
        warmup_steps: int = 0,
        schedule_steps: int | None = None,
        decay_steps: int = 0,
        ema_decay: float = 0.9999,
        trainable: Literal["all", "temporal"] = "all",
        init_from: str | None = None,
        on_nan: OnNan = "stop",
        max_skipped: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.beta2 = lr, weight_decay, beta2
        self.warmup_steps, self.schedule_steps, self.decay_steps = warmup_steps, schedule_steps, decay_steps
        self.seed, self.init_from, self.ema_decay = seed, init_from, ema_decay
        self.finite = FiniteSteps(on_nan, max_skipped)
        self.model = model
        if trainable == "temporal":
            train_temporal_only(model)
        self.ema = Ema(model, ema_decay)

    # what a subclass fills in

    @property
    def embedding_dim(self) -> int | None:
        """Width of the CLIP embeddings that the model takes; None if it takes none."""
        return None

    def condition(self, batch: Batch) -> Batch:
        """Complete a batch with what the model's loss needs; the default adds nothing."""
        return batch

    def clean(self, batch: Batch) -> Tensor:
        """Return the data that noise is added to, (B, ...)."""
        video: Tensor = batch["video"]
        return video

    def samples(self, batch: Batch, noise: NoiseStream) -> Tensor:
        """Return what the model makes of a batch's condition."""
        raise NotImplementedError

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Return the stage's own measures of quality on one held-out batch, each a mean over the batch."""
        raise NotImplementedError

    def check_size(self, data: Any) -> None:
        """Require frames of a size that the model can take; the default takes any.

        Raises:
            ConfigError: The data module gives another size.
        """

    # training

    def setup(self, stage: str) -> None:
        """Check that the data fit the model, and start a new run from ``init_from``; a resumed one has its checkpoint.

        Raises:
            ConfigError: The data's CLIP has another width than the model, or its frames another size.
        """
        self.check_size(self.trainer.datamodule)  # type: ignore[attr-defined]
        clip = getattr(self.trainer.datamodule, "clip", None)  # type: ignore[attr-defined]
        if clip is not None and self.embedding_dim not in (None, clip.embedding_dim):
            raise ConfigError(
                f"data.clip {self.trainer.datamodule.clip_source} has embeddings of width {clip.embedding_dim}, but "  # type: ignore[attr-defined]
                f"model.config.network was built for {self.embedding_dim}; make the two equal"
            )
        if stage == "fit" and self.init_from and self.trainer.ckpt_path is None:
            hand_over(self.init_from, self.model)
            self.ema = Ema(self.model, self.ema_decay)

    def configure_model(self) -> None:
        """Under a strategy that shards, shard the model, whose weights are those to start from, and its averages."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy):
            from lightning_mav.stages.sharding import is_sharded, shard  # imports much, for few

            if not is_sharded(self.model):
                shard(self.model, strategy.device_mesh["data_parallel"], str(self.trainer.precision))
                self.ema = Ema(self.model, self.ema_decay)

    def losses(self, batch: Batch, timesteps: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss of each sample; timestep and noise are functions of (seed, index, position)."""
        keys = self.keys(batch)
        if timesteps is None:
            density, steps = self.model.objective.density, self.model.objective.num_timesteps
            timesteps = torch.tensor([density.draw(steps, generator("timestep", *key), key[-1]) for key in keys])
        batch = self.condition(batch | {"dropped": self._dropped(keys)})
        clean = self.clean(batch)
        noise = keyed_noise([("noise", *key) for key in keys], clean.shape[1:]).to(clean)
        losses: dict[str, Tensor] = self.model.loss(batch, noise, timesteps.to(self.device))
        return losses

    def keys(self, batch: Batch) -> list[tuple[int, int, int]]:
        """Return what names each sample of a batch: (seed, index, position in the run)."""
        pairs = zip(batch["index"].tolist(), batch["position"].tolist(), strict=True)
        return [(self.seed, index, position) for index, position in pairs]

    def _dropped(self, keys: list[tuple[int, int, int]]) -> Tensor:
        """Say which training samples lose their condition, for classifier-free guidance."""
        share = getattr(self.model.config, "condition_dropout", 0.0) if self.training else 0.0
        draws = [float(torch.rand((), generator=generator("drop", *key))) for key in keys]
        return torch.tensor([draw < share for draw in draws], device=self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        self._fix_dropout(batch)
        losses = self.losses(batch)
        loss = self.finite.see(batch["index"], losses["loss"])
        means = {f"train/{name}": value.detach().mean() for name, value in losses.items()}
        if self.finite.skipped:
            means["train/skipped"] = torch.tensor(float(self.finite.skipped))
        self.log_dict(means, batch_size=_size(batch))
        self.log("loss", means["train/loss"], prog_bar=True, logger=False, batch_size=_size(batch))
        return loss

    def _fix_dropout(self, batch: Batch) -> None:
        """Make what draws from torch's global generator a function of the batch's first sample, so that it resumes."""
        torch.manual_seed(hashed_seed("dropout", *self.keys(batch)[0]))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop at a step that is not finite, or take its gradients away; the step counts, so the position moves on."""
        self.finite.judge(self.model, optimizer, self.global_step, searching=self.trainer.scaler is not None)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the averaged weights follow; once per step also under gradient accumulation."""
        super().optimizer_step(*args, **kwargs)
        if not self.finite.in_a_row:
            self.ema.update(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with the learning-rate schedule."""
        optimizer = torch.optim.AdamW(
            decay_groups(self.model, self.weight_decay), lr=self.lr, betas=(0.9, self.beta2), foreach=True
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_factor(self, step: int) -> float:
        """Return the learning rate at ``step`` as a share of its peak."""
        rise = (step + 1) / (self.warmup_steps + 1)
        left = 1.0
        if self.schedule_steps is not None:
            left = (self.schedule_steps - step) / max(self.decay_steps, 1)
        return max(0.0, min(1.0, rise, left))

    # judging

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss with averaged weights, in all and per range of timesteps."""
        steps = self.model.objective.num_timesteps
        for i in range(TIMESTEP_BINS):
            start, end = steps * i // TIMESTEP_BINS, steps * (i + 1) // TIMESTEP_BINS
            with self.averaged():
                losses = self.losses(batch, torch.full((_size(batch),), (start + end) // 2))
            loss = losses["loss"].mean()
            self.log(f"val/loss_t{start:03d}-{end:03d}", loss, batch_size=_size(batch), sync_dist=True)
            self.log("val/loss", loss, prog_bar=True, batch_size=_size(batch), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the stage's own measures of quality, with averaged weights."""
        with self.averaged():
            measures = self.quality(self.condition(batch | {"dropped": self._dropped(self.keys(batch))}))
        self.log_dict({f"test/{k}": v for k, v in measures.items()}, batch_size=_size(batch), sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return samples for a batch, with averaged weights."""
        with self.averaged():
            batch = self.condition(batch | {"dropped": self._dropped(self.keys(batch))})
            return self.samples(batch, self.noise(batch))

    def noise(self, batch: Batch) -> NoiseStream:
        """Return the noise of generated samples, a function of (seed, index)."""
        return NoiseStream.keyed([("sample", self.seed, index) for index in batch["index"].tolist()])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Compute with the averaged weights inside the ``with`` block."""
        with self.ema.applied(self.model):
            yield

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the model's name and configuration into the checkpoint, and how many steps were left out."""
        checkpoint["model"] = describe(self.model)
        checkpoint["skipped"] = self.finite.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting the steps left out."""
        self.finite.load(checkpoint.get("skipped", [0, 0]))


def train_temporal_only(model: nn.Module) -> None:
    """Freeze everything that a 2D checkpoint holds.

    Raises:
        ConfigError: The network has no temporal layers.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_temporal(name.removeprefix("network.")))
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model.trainable: temporal, but the network has no temporal layers; set network.temporal")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those with weight decay and those without."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim > 1 and not is_dirac(name)]
    kept = [p for name, p in trained if p.ndim <= 1 or is_dirac(name)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def check_multiple(key: str, size: int, multiple: int) -> None:
    """Require a size in pixels that a network can halve as often as it does.

    Raises:
        ConfigError: It cannot.
    """
    if size < 1 or size % multiple:
        near = max(1, round(size / multiple)) * multiple
        raise ConfigError(f"{key}: {size} pixels, but the network takes multiples of {multiple}; choose {near}")


def _size(batch: Batch) -> int:
    return len(batch["index"])
