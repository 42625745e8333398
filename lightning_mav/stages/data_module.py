"""What the data modules of all stages have in common: the order of samples, the held-out ones, the bad ones."""

from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from lightning_mav.data.batches import Batch, check_frames, collate
from lightning_mav.data.loading import Loader, batch_loader
from lightning_mav.data.order import BucketBatches, EndlessBatches, FixedBatches
from lightning_mav.data.skipping import LIST, BadSamples, SkippingDataset
from lightning_mav.errors import ConfigError


class StageDataModule(LightningDataModule):
    """The data of a stage; a subclass builds the data set.

    Args:
        source: "moving_shapes", or a folder or a csv or jsonl list of the user's own files.
        size: Height and width of samples in pixels.
        batch_size: Samples per device and step; a run may go on with another on another number of devices.
        num_workers: Processes that read samples; 0 reads in the training process.
        val_source: Where held-out samples come from; None holds back a small part of ``source``.
        val_samples: At most this many held-out samples are used.
        timeout: Seconds without a batch after which reading processes count as stuck, and the run ends.
        seed: Of order, augmentation and frame rates.
        on_error: ``stop`` ends the run at a bad sample; ``skip`` lists it in RUN/bad_samples.jsonl and reads another.
        skip_budget: As many distinct samples of a split may be skipped over the whole run.
    """

    def __init__(
        self,
        source: str = "moving_shapes",
        size: int = 64,
        batch_size: int = 8,
        num_workers: int = 0,
        val_source: str | None = None,
        val_samples: int = 64,
        timeout: float = 300,
        seed: int = 0,
        on_error: Literal["stop", "skip"] = "stop",
        skip_budget: int = 100,
    ) -> None:
        super().__init__()
        if not timeout > 0:
            raise ConfigError(f"data.timeout: expected more than 0 seconds, got {timeout:g}")
        if skip_budget < 0:
            raise ConfigError(f"data.skip_budget: expected at least 0 samples, got {skip_budget}")
        if batch_size < 1 or num_workers < 0:
            raise ConfigError(
                f"data.batch_size {batch_size} must be at least 1, data.num_workers {num_workers} at least 0"
            )
        self.source, self.size, self.batch_size, self.num_workers = source, size, batch_size, num_workers
        self.val_source, self.val_samples, self.seed = val_source, val_samples, seed
        self.timeout = timeout
        self.on_error, self.skip_budget = on_error, skip_budget
        self.arrived = 0.0  # when the newest batch was there, on the clock of ``perf_counter``

    @property
    def frame_sizes(self) -> set[tuple[int, int]]:
        """Height and width of samples in pixels."""
        return {(self.size, self.size)}

    def dataset(self, split: Literal["train", "val"]) -> Any:
        """Return the data set of a split, read by (index, position) pairs."""
        raise NotImplementedError

    def readable(self, split: Literal["train", "val"]) -> Any:
        """Return the data set of a split, in which a bad sample is replaced if ``on_error`` says so."""
        dataset = self.dataset(split)
        return self.skipping(dataset, split, len(dataset) if split == "train" else min(self.val_samples, len(dataset)))

    def skipping(self, dataset: Any, split: Literal["train", "val"], num: int) -> Any:
        """Let bad ones of the first ``num`` samples of a data set replace each other if ``on_error`` says so."""
        if self.on_error == "stop":
            return dataset
        assert self.trainer is not None
        bad = BadSamples(Path(self.trainer.default_root_dir) / LIST, split)
        return SkippingDataset(dataset, num, self.seed, bad, self.skip_budget)

    def source_of(self, split: Literal["train", "val"]) -> tuple[str, Literal["train", "val"]]:
        """Return source and split to open for ``split``: a ``val_source`` is used whole."""
        if split == "val" and self.val_source:
            return self.val_source, "train"
        return self.source, split

    def train_dataloader(self) -> Loader:
        """Return endless batches from the first sample the run has not consumed."""
        dataset, trainer = self.readable("train"), self.trainer
        assert trainer is not None
        consumed = trainer.global_step * trainer.accumulate_grad_batches * self.batch_size * trainer.world_size
        place = (self.batch_size, self.seed, consumed, trainer.global_rank, trainer.world_size)
        buckets = getattr(dataset, "buckets", None)
        batches = BucketBatches(buckets.number, *place) if buckets else EndlessBatches(len(dataset), *place)
        return self._loader(dataset, batches)

    def val_dataloader(self) -> Loader:
        """Return the held-out samples, the same at every call."""
        dataset = self.readable("val")
        num, buckets = min(self.val_samples, len(dataset)), getattr(dataset, "buckets", None)
        return self._loader(dataset, FixedBatches(num, self.batch_size, buckets and buckets.number))

    def held_out(self, num: int) -> Batch:
        """Return the first ``num`` held-out samples, of the shape that the model makes."""
        dataset = self.readable("val")
        return collate([dataset[i, i] for i in range(min(num, len(dataset)))])

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def state_dict(self) -> dict[str, Any]:
        """Return what makes the samples of a step, by which positions are counted."""
        assert self.trainer is not None
        return {"batch_size": self.batch_size, "devices": self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Require as many samples a step as the checkpoint's run had, or positions would jump.

        Raises:
            ConfigError: They are more or fewer; the message says what keeps them.
        """
        assert self.trainer is not None
        size, devices, now = state_dict["batch_size"], state_dict["devices"], self.trainer.world_size
        if self.trainer.training and size * devices != self.batch_size * now:
            fix = f"set --data.batch_size {size * devices // now}"
            if size * devices % now:
                fix = f"take a number of devices that divides {size * devices}"
            raise ConfigError(
                f"data.batch_size {size} on {devices} device{'s' * (devices > 1)} was {size * devices} samples a step,"
                f" now {self.batch_size * now}; {fix}"
            )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Note when the batch was there, and require frames as the stages take them, before anything is computed.

        Raises:
            DataError: The data set gives others; the message names the sample.
        """
        self.arrived = perf_counter()
        if self.trainer is not None and getattr(self.trainer.lightning_module, "takes_frames", False):
            check_frames(batch, self.frame_sizes)
        return batch

    def _loader(self, dataset: Dataset[dict[str, Any]], batches: Any) -> Loader:
        return batch_loader(dataset, batches, self.num_workers, self.timeout)
