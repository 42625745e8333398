"""Training of the decoder: on images without text, then inflated, on unlabelled video (paper sections 3.1 to 3.3)."""

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as fn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.data.batches import Batch, collate
from lightning_mav.data.buckets import BucketConfig, Buckets, Shape, divide
from lightning_mav.data.fps import FpsDistribution
from lightning_mav.data.images import ImageDataset, open_images
from lightning_mav.data.manifest import Samples
from lightning_mav.data.videos import VideoDataset, open_videos
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.seeding import generator
from lightning_mav.stages.base import Stage, check_multiple
from lightning_mav.stages.data_module import StageDataModule


class DecoderStage(Stage):
    """D on images, D^t on videos; the network's ``temporal`` setting decides which.

    Args:
        config: The decoder.
        options: What every stage has: lr, init_from, trainable and so on.
    """

    model: Decoder
    takes_frames = True

    def __init__(self, config: DecoderConfig, **options: Any) -> None:
        super().__init__(Decoder(config), **options)

    @property
    def embedding_dim(self) -> int | None:
        """Width of the CLIP embeddings that the decoder takes."""
        return self.model.config.network.image_embedding_dim

    def check_size(self, data: Any) -> None:
        """Require the size that the model is configured to make."""
        check_image_size(data, self.model.config)

    def condition(self, batch: Batch) -> Batch:
        """Drop the frame rate of images, which are videos of one frame."""
        return batch if self.model.makes_videos else {k: v for k, v in batch.items() if k != "fps"}

    def samples(self, batch: Batch, noise: NoiseStream) -> Tensor:
        """Return frames made from the batch's image embeddings, (B, 3, F, H, W)."""
        num_frames, text = batch["video"].shape[2], TextEncoding.of(batch)
        return self.model.sample(batch["image_embedding"], noise, batch.get("fps"), num_frames, text=(text, text))

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Compare samples with the held-out batch whose embeddings they were made from."""
        video = self.samples(batch, self.noise(batch))
        embedding = self.trainer.datamodule.clip.encode_image(video[:, :, video.shape[2] // 2])  # type: ignore[attr-defined]
        measures = {"image_cosine": fn.cosine_similarity(embedding, batch["image_embedding"].to(embedding)).mean()}
        if video.shape[2] > 1:
            measures["frame_difference_over_real"] = frame_difference(video) / frame_difference(batch["video"])
        return measures


class DecoderDataModule(StageDataModule):
    """Images (frames = 1) or videos, with the CLIP embedding of one frame.

    Args:
        clip: The frozen CLIP, see ``checkpoint.clip.load_clip``.
        frames: Frames of a sample; 1 reads images.
        fps: A fixed frame rate, or the distribution to draw it from.
        embedding_frame: Whose embedding is the condition: the first frame (the paper's loss) or a random one.
        augment: None, or random crops, or random crops and flips.
        buckets: Aspects and lengths among which the samples of a manifest are divided; None for squares of one length.
        options: What every data module has: source, size, batch_size and so on.
    """

    def __init__(
        self,
        clip: str,
        frames: int = 16,
        fps: FpsDistribution | float = FpsDistribution(),
        embedding_frame: Literal["first", "random"] = "first",
        augment: Literal["none", "crop", "crop+flip"] = "none",
        buckets: BucketConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if buckets and buckets.lengths and frames not in buckets.lengths:
            raise ConfigError(
                f"data.buckets.lengths: {list(buckets.lengths)}, but data.frames is {frames}, the number that samples"
                " are drawn with during training; make it one of them"
            )
        self.buckets = buckets
        self.clip_source, self.frames, self.fps = clip, frames, fps
        self.embedding_frame, self.augment = embedding_frame, augment

    def setup(self, stage: str) -> None:
        """Load the frozen CLIP; it stays outside every module, so no checkpoint holds it."""
        self.clip = load_clip(self.clip_source)
        self.empty_text = self.clip.encode_text([""])

    @property
    def frame_sizes(self) -> set[tuple[int, int]]:
        """Height and width of samples in pixels."""
        shapes = self.buckets.shapes(self.size, self.frames) if self.buckets else ()
        return {(shape.height, shape.width) for shape in shapes} | super().frame_sizes

    def dataset(self, split: Literal["train", "val"]) -> Dataset[dict[str, Any]]:
        """Return images or videos."""
        source, part = self.source_of(split)
        if self.frames == 1:
            images = open_images(source, part, self.size)
            return ImageDataset(images, self.size, self.seed, self.augment, self._divided(images, source))
        fps = replace(self.fps, curriculum_samples=0) if split == "val" and _is_drawn(self.fps) else self.fps  # type: ignore[type-var]
        videos = open_videos(source, part, self.size)
        return VideoDataset(videos, self.size, self.frames, fps, self.seed, self.augment, self._divided(videos, source))

    def _divided(self, files: Any, source: str) -> Buckets | None:
        """Divide the files of a source among the buckets, if there are any.

        Raises:
            ConfigError: The source does not say how large they are.
        """
        if not self.buckets:
            return None
        if not isinstance(samples := getattr(files, "samples", None), Samples):
            raise ConfigError(
                f"data.buckets: {source} has no manifest, which says how large its files are; make one by data index"
            )
        return divide(samples, self.buckets.shapes(self.size, self.frames))

    def held_out(self, num: int) -> Batch:
        """Return the first ``num`` held-out samples, of the shape that the model makes, whatever the buckets.

        Raises:
            ConfigError: No video is long enough.
        """
        if not self.buckets:
            return super().held_out(num)
        dataset: Any = self.dataset("val")
        buckets = dataset.buckets
        dataset.buckets = replace(buckets, shapes=(Shape(self.frames, self.size, self.size),) * len(buckets.shapes))
        long = [index for index in range(len(dataset)) if buckets.shape(index).frames >= self.frames]
        if not long:
            raise ConfigError(f"data.frames: {self.frames}, but no held-out video has as many; lower it")
        readable = self.skipping(dataset, "val", len(dataset))
        return collate([readable[index, index] for index in long[:num]])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Add the image embedding and the empty text, for decoders with text; an image becomes a video of one frame."""
        if "image" in batch:
            batch = batch | {"video": batch["image"].unsqueeze(2)}
        embedding = self.clip.encode_image(self._embedded_frame(batch))
        self.empty_text = self.empty_text.to(embedding.device)
        return batch | {"image_embedding": embedding} | self.empty_text.expand(len(embedding)).as_condition()

    def _embedded_frame(self, batch: Batch) -> Tensor:
        video: Tensor = batch["video"]
        if self.embedding_frame == "first":
            return video[:, :, 0]
        keys = zip(batch["index"].tolist(), batch["position"].tolist(), strict=True)
        frames = [torch.randint(video.shape[2], (), generator=generator("frame", self.seed, *key)) for key in keys]
        return torch.stack([one[:, int(frame)] for one, frame in zip(video, frames, strict=True)])


def check_image_size(data: Any, config: DecoderConfig) -> None:
    """Require frames of the size that a decoder is configured to make.

    Raises:
        ConfigError: They have another, or one that its network cannot take.
    """
    check_multiple("model.config.image_size", config.image_size, config.network.downsampling * config.unshuffle)
    if data.size != config.image_size:
        raise ConfigError(
            f"data.size: {data.size}, but model.config.image_size is {config.image_size}; make them equal"
        )
    if buckets := getattr(data, "buckets", None):
        check_multiple("data.buckets.multiple", buckets.multiple, config.network.downsampling * config.unshuffle)


def frame_difference(video: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring frames of (B, C, F, H, W)."""
    return (video[:, :, 1:] - video[:, :, :-1]).abs().mean()


def _is_drawn(fps: FpsDistribution | float) -> bool:
    return isinstance(fps, FpsDistribution)
