"""Training of the prior P (paper section 3.1): pairs of image and caption, as a frozen CLIP sees them."""

from functools import cached_property
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.data.batches import Batch, check_frames
from lightning_mav.data.embeddings import EmbeddedImages, read_record
from lightning_mav.data.images import open_images
from lightning_mav.data.order import EndlessBatches
from lightning_mav.data.transforms import Augmentation
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.prior import Prior, PriorConfig
from lightning_mav.networks.encoders import TEXT, TextEncoding
from lightning_mav.stages.base import Stage
from lightning_mav.stages.clip import CaptionedImages, retrieval
from lightning_mav.stages.data_module import StageDataModule


class PriorStage(Stage):
    """P: text to image embedding. Its batches hold tensors only; the data module runs CLIP.

    Args:
        config: The prior.
        options: What every stage has: lr, init_from and so on.
    """

    model: Prior
    takes_frames = True

    def __init__(self, config: PriorConfig, **options: Any) -> None:
        super().__init__(Prior(config), **options)

    @property
    def embedding_dim(self) -> int | None:
        """Width of the CLIP embeddings that the prior takes."""
        return self.model.config.network.embedding_dim

    def setup(self, stage: str) -> None:
        """Compare the network's widths with CLIP's.

        Raises:
            ConfigError: They differ.
        """
        data: PriorDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        network, clip = self.model.config.network, data.clip
        if (network.embedding_dim, network.states_dim) != (clip.embedding_dim, clip.states_dim):
            raise ConfigError(
                f"model.config.network: embedding_dim {network.embedding_dim} and states_dim {network.states_dim}, but "
                f"the clip {data.clip_source} has {clip.embedding_dim} and {clip.states_dim}; give the network those"
            )

    def on_fit_start(self) -> None:
        """Take mean and deviation of the embeddings from the data, unless a checkpoint brought them."""
        if bool((self.model.embedding_std == 1).all()):
            mean, std = self.trainer.datamodule.statistics(self.device)  # type: ignore[attr-defined]
            self.model.embedding_mean.copy_(mean)
            self.model.embedding_std.copy_(std)

    def condition(self, batch: Batch) -> Batch:
        """Give the samples whose text was dropped the empty text."""
        dropped = batch["dropped"]
        chosen = {}
        for name in TEXT:
            text, null = batch[name], batch[f"null_{name}"]
            chosen[name] = torch.where(dropped.view(-1, *[1] * (text.ndim - 1)), null, text)
        return batch | chosen

    def clean(self, batch: Batch) -> Tensor:
        """Return the image embeddings (B, D)."""
        embedding: Tensor = batch["image_embedding"]
        return embedding

    def samples(self, batch: Batch, noise: NoiseStream) -> Tensor:
        """Return image embeddings (B, D) drawn for the batch's texts."""
        null = TextEncoding.of({name: batch[f"null_{name}"] for name in TEXT})
        return self.model.sample(TextEncoding.of(batch), null, noise)

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Compare drawn embeddings with the true one and with all captions' mean embeddings, beside the text's own."""
        drawn = self.samples(batch, self.noise(batch))
        cosine = {
            "cosine": F.cosine_similarity(drawn, batch["image_embedding"]).mean(),
            "text_cosine": F.cosine_similarity(batch["text_embedding"], batch["image_embedding"]).mean(),
        }
        return retrieval(drawn, batch["prototypes"], batch["label"]) | cosine


class PriorDataModule(StageDataModule):
    """Images with captions, encoded by a frozen CLIP; or a folder of their embeddings, as ``data embed`` writes it.

    Args:
        clip: The frozen CLIP, see ``checkpoint.clip.load_clip``.
        augment: See ``data.transforms.prepare``; embeddings are of images that were not augmented.
        statistics_samples: Mean and deviation of the embeddings are taken from this many training images.
        gallery: Test samples are matched against the captions of the test and of this many training images.
        options: What every data module has: source, size, batch_size and so on.
    """

    def __init__(
        self,
        clip: str,
        augment: Augmentation = "none",
        statistics_samples: int = 4096,
        gallery: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.clip_source, self.statistics_samples, self.gallery = clip, statistics_samples, gallery
        self.augment: Augmentation = augment

    def setup(self, stage: str) -> None:
        """Load the frozen CLIP; it stays outside every module, so no checkpoint holds it.

        Raises:
            ConfigError: Stored embeddings are of another CLIP, or are to be augmented.
        """
        self.clip = load_clip(self.clip_source)
        for source in filter(None, (self.source, self.val_source)):
            record = read_record(source)
            if record and record.clip != self.clip.fingerprint:
                raise ConfigError(f"data.clip: the embeddings in {source} are of another CLIP than {self.clip_source}")
            if record and self.augment != "none":
                raise ConfigError(f"data.augment: {self.augment}, but {source} holds embeddings; set it to none")

    def dataset(self, split: Literal["train", "val"]) -> CaptionedImages | EmbeddedImages:
        """Return captioned images, or their embeddings."""
        source, part = self.source_of(split)
        if read_record(source):
            return EmbeddedImages(source, part)
        return CaptionedImages(open_images(source, part, self.size), self.size, self.seed, self.augment)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Add the embeddings of image and text, those of the empty text, and for a test the competing captions'."""
        image = self._image_embedding(batch)
        text, null = (self.clip.encode_text(texts).as_condition() for texts in (batch["caption"], [""]))
        batch = batch | {"image_embedding": image} | text | {f"null_{name}": value for name, value in null.items()}
        if self.trainer is None or not self.trainer.testing:
            return batch
        captions, prototypes = self.prototypes
        label = torch.tensor([captions.index(caption) for caption in batch["caption"]], device=image.device)
        return batch | {"prototypes": prototypes.to(image.device), "label": label}

    def _image_embedding(self, batch: Batch) -> Tensor:
        """Return the embeddings (B, D), from the disk or by CLIP."""
        stored: Tensor | None = batch.get("image_embedding")
        return self.clip.encode_image(batch["image"]) if stored is None else stored

    def statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (D,) of the embeddings of training images, whatever the batch size."""
        _, embeddings = self._encoded(self._some_training_images(self.statistics_samples), device)
        embeddings = embeddings[: self.statistics_samples]
        return embeddings.mean(0), embeddings.std(0)

    @cached_property
    def prototypes(self) -> tuple[list[str], Tensor]:
        """The distinct captions of test images and of some training images, and the mean embedding (P, D) of each."""
        parts = [self._encoded(loader) for loader in (self.test_dataloader(), self._some_training_images(self.gallery))]
        captions = [caption for part, _ in parts for caption in part]
        embeddings = torch.cat([part for _, part in parts])
        distinct = list(dict.fromkeys(captions))
        number = torch.tensor([distinct.index(caption) for caption in captions])
        return distinct, torch.stack([embeddings[number == i].mean(0) for i in range(len(distinct))])

    def _some_training_images(self, num: int) -> DataLoader[dict[str, Any]]:
        dataset = self.readable("train")
        batches = EndlessBatches(len(dataset), self.batch_size, self.seed)
        return self._loader(dataset, list(islice(batches, -(-min(num, len(dataset)) // self.batch_size))))

    def _encoded(
        self, loader: DataLoader[dict[str, Any]], device: torch.device | None = None
    ) -> tuple[list[str], Tensor]:
        """Return the captions and the embeddings (N, D) of a loader's images."""
        captions, embeddings = [], []
        for batch in loader:
            check_frames(batch, self.frame_sizes)
            captions += batch["caption"]
            tensors = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
            embeddings.append(self._image_embedding(tensors))
        return captions, torch.cat(embeddings).float()
