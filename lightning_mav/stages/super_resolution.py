"""Training of super-resolution: SR_l on images, then over space and time on unlabelled video; SR_h frame by frame."""

from math import lcm
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mav.data.batches import Batch
from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.images import ImageDataset, open_images
from lightning_mav.data.transforms import Degradation, downsample
from lightning_mav.data.videos import VideoDataset, open_videos
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.super_resolution import (
    SpacetimeSR,
    SpatialSR,
    SuperResolution,
    SuperResolutionConfig,
    upsample,
)
from lightning_mav.seeding import generator
from lightning_mav.stages.base import Stage, check_multiple
from lightning_mav.stages.data_module import StageDataModule
from lightning_mav.stages.interpolation import psnr


class _SuperResolutionStage(Stage):
    """Both super-resolution stages: the same training, another model."""

    model: SuperResolution
    takes_frames = True

    def check_size(self, data: Any) -> None:
        """Require the model's scale, and large frames that both it and the network can divide."""
        config = self.model.config
        if data.scale != config.scale:
            raise ConfigError(f"data.scale: {data.scale}, but model.config.scale is {config.scale}; make them equal")
        multiple = lcm(config.scale, config.network.downsampling * config.unshuffle)
        check_multiple("data.size", data.size, multiple)
        if data.crop is not None:
            check_multiple("data.crop", data.crop, multiple)
            if data.crop > data.size:
                raise ConfigError(f"data.crop: {data.crop} is larger than data.size {data.size}; lower it")

    def samples(self, batch: Batch, noise: NoiseStream) -> Tensor:
        """Return the enlarged frames, (B, 3, F, H, W)."""
        return self.model.sample(batch["low_res"], noise)

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Return the PSNR in dB of enlarged frames, beside that of bicubic enlargement."""
        large = self.samples(batch, self.noise(batch))
        bicubic = upsample(batch["low_res"], self.model.config.scale)
        return {"psnr": psnr(large, batch["video"]), "psnr_bicubic": psnr(bicubic, batch["video"])}


class SpacetimeSRStage(_SuperResolutionStage):
    """SR_l^t, 64 to 256 pixels: over space and time when the network's ``temporal`` is set.

    Args:
        config: The model.
        options: What every stage has: lr, init_from, trainable and so on.
    """

    def __init__(self, config: SuperResolutionConfig, **options: Any) -> None:
        super().__init__(SpacetimeSR(config), **options)


class SpatialSRStage(_SuperResolutionStage):
    """SR_h, 256 to 768 pixels, frame by frame.

    Args:
        config: The model; its network mixes no frames.
        options: What every stage has: lr, init_from, trainable and so on.
    """

    def __init__(self, config: SuperResolutionConfig, **options: Any) -> None:
        super().__init__(SpatialSR(config), **options)


class _SuperResolutionDataModule(StageDataModule):
    """High-resolution frames and their degraded, smaller versions.

    Args:
        scale: Enlargement to learn.
        degradation: Of the smaller version, drawn once per video.
        crop: Side of the random square that training sees; None for all. Validation always sees all.
        options: What every data module has: source, size, batch_size and so on.
    """

    def __init__(self, scale: int, degradation: Degradation, crop: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.scale, self.degradation, self.crop = scale, degradation, crop

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Add the low-resolution input, a function of (seed, index, position); images become videos of one frame."""
        video: Tensor = batch["video"] if "video" in batch else batch["image"].unsqueeze(2)
        training = self.trainer is not None and self.trainer.training
        keys = list(zip(batch["index"].tolist(), batch["position"].tolist(), strict=True))
        draws = [generator("degrade", self.seed, *key) for key in keys]
        if training and self.crop:
            video = torch.stack([random_square(one, self.crop, draw) for one, draw in zip(video, draws, strict=True)])
        low_res = downsample(video, video.shape[-1] // self.scale)
        if training:
            low_res = torch.stack([self.degradation(one, draw) for one, draw in zip(low_res, draws, strict=True)])
        return batch | {"video": video, "low_res": low_res}


class SpacetimeSRDataModule(_SuperResolutionDataModule):
    """Images (frames = 1), then unlabelled videos.

    Args:
        frames: Frames of a sample; 1 reads images.
        fps: A fixed frame rate, or the distribution to draw it from.
        degradation: By default every example is blurred with sigma 0.6.
        options: scale, crop, source, size, batch_size and so on.
    """

    def __init__(
        self,
        scale: int = 4,
        frames: int = 16,
        fps: FpsDistribution | float = FpsDistribution(beta_end=(1, 1)),
        degradation: Degradation = Degradation(),
        **options: Any,
    ) -> None:
        super().__init__(scale, degradation, **options)
        self.frames, self.fps = frames, fps

    def dataset(self, split: Literal["train", "val"]) -> Dataset[dict[str, Any]]:
        """Return images or videos at high resolution."""
        source, part = self.source_of(split)
        if self.frames == 1:
            return ImageDataset(open_images(source, part, self.size), self.size, self.seed)
        return VideoDataset(open_videos(source, part, self.size), self.size, self.frames, self.fps, self.seed)


class SpatialSRDataModule(_SuperResolutionDataModule):
    """Images alone: the paper's SR_h never sees video.

    Args:
        degradation: By default half of the examples are blurred, with sigma between 0.4 and 0.6.
        options: scale, crop, source, size, batch_size and so on.
    """

    def __init__(
        self,
        scale: int = 3,
        degradation: Degradation = Degradation(probability=0.5, sigma=(0.4, 0.6)),
        **options: Any,
    ) -> None:
        super().__init__(scale, degradation, **options)

    def dataset(self, split: Literal["train", "val"]) -> Dataset[dict[str, Any]]:
        """Return images at high resolution."""
        source, part = self.source_of(split)
        return ImageDataset(open_images(source, part, self.size), self.size, self.seed)


def random_square(video: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a random square of ``side`` pixels out of (C, F, H, W), the same for all frames."""
    y, x = (int(torch.randint(n - side + 1, (), generator=generator)) for n in video.shape[-2:])
    return video[..., y : y + side, x : x + side]
