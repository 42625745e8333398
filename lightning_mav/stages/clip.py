"""Training of the small CLIP, where no pretrained one can be had: pairs of image and caption."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mav.data.batches import Batch
from lightning_mav.data.images import ImageDataset, open_images
from lightning_mav.data.transforms import Augmentation, downsample
from lightning_mav.errors import DataError
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.networks.encoders import tokenize
from lightning_mav.seeding import generator
from lightning_mav.stages.base import Stage
from lightning_mav.stages.data_module import StageDataModule


class ClipStage(Stage):
    """The two towers of a small CLIP.

    Args:
        config: The CLIP.
        options: What every stage has: lr, init_from and so on.
    """

    model: Clip
    takes_frames = True

    def __init__(self, config: ClipConfig, **options: Any) -> None:
        super().__init__(Clip(config), **options)

    def losses(self, batch: Batch, timesteps: Tensor | None = None) -> dict[str, Tensor]:
        """Return the contrastive loss of each pair; there is no noise and no timestep."""
        return self.model.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss with averaged weights."""
        with self.averaged():
            loss = self.losses(batch)["loss"].mean()
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch["index"]), sync_dist=True)

    def samples(self, batch: Batch, noise: Any = None) -> Tensor:
        """Return the embeddings of the batch's images, (B, D)."""
        embedding: Tensor = self.model.network.image(batch["image"])
        return embedding

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Say how often an image finds its caption among all captions, and how near the two are."""
        texts = self.model.network.text(batch["captions"])[0]
        return retrieval(self.samples(batch), texts, batch["label"])


class ClipDataModule(StageDataModule):
    """Images with captions; each image loses a random amount of detail, so that embeddings agree over resolutions.

    Args:
        min_size: Training images are shrunk to a size drawn from ``min_size`` to ``size``, and enlarged again.
        augment: See ``data.transforms.prepare``.
        gallery: Test images are matched against their own captions and those of this many training images.
        options: What every data module has: source, size, batch_size and so on.
    """

    def __init__(self, min_size: int = 16, augment: Augmentation = "none", gallery: int = 1000, **options: Any) -> None:
        super().__init__(**options)
        self.min_size, self.gallery = min_size, gallery
        self.augment: Augmentation = augment

    def dataset(self, split: Literal["train", "val"]) -> "CaptionedImages":
        """Return captioned images; only training ones are augmented."""
        source, part = self.source_of(split)
        images = open_images(source, part, self.size)
        if split == "val":
            return CaptionedImages(images, self.size, self.seed)
        return BlurredImages(images, self.size, self.seed, self.augment, min_size=self.min_size)

    def setup(self, stage: str) -> None:
        """For a test, collect the captions that compete."""
        if stage == "test":
            val, train = self.dataset("val"), self.dataset("train")
            known = [val.caption(i) for i in range(min(len(val), self.val_samples))]
            self.captions = list(
                dict.fromkeys(known + [train.caption(i) for i in range(min(len(train), self.gallery))])
            )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Add the byte-pair ids of the captions, and for a test the competing captions and which is right."""
        device = batch["image"].device
        batch = batch | {"tokens": tokenize(batch["caption"]).to(device)}
        if self.trainer is None or not self.trainer.testing:
            return batch
        label = torch.tensor([self.captions.index(caption) for caption in batch["caption"]], device=device)
        return batch | {"captions": tokenize(self.captions).to(device), "label": label}


class CaptionedImages(ImageDataset):
    """Images of which every one has a caption."""

    def caption(self, index: int) -> str:
        """Return the caption of image ``index``.

        Raises:
            DataError: It has none.
        """
        caption = super().caption(index)
        if caption is None:
            raise DataError(f"{self.source.name(index)}: no caption; add a .txt file of the same name, or a column")
        return caption


class BlurredImages(CaptionedImages):
    """Captioned images shrunk to a random size and enlarged again.

    Args:
        args: As of ``ImageDataset``.
        min_size: Smallest size in pixels.
    """

    def __init__(self, *args: Any, min_size: int) -> None:
        super().__init__(*args)
        self.min_size = min_size

    def sample(self, key: tuple[int, int], image: Tensor) -> dict[str, Any]:
        """Blur the image by a size that is a function of (seed, index, position)."""
        sample = super().sample(key, image)
        size = int(torch.randint(self.min_size, self.size + 1, (), generator=generator("blur", self.seed, *key)))
        return sample | {"image": downsample(downsample(sample["image"], size), self.size)}


def retrieval(embeddings: Tensor, gallery: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Match embeddings (B, D) against a gallery (P, D), of which entry ``label`` (B,) is the right one for each.

    Returns:
        "retrieval", the share whose nearest entry by cosine is the right one, and "cosine" to the right one.
    """
    cosines = F.normalize(embeddings.float(), dim=-1) @ F.normalize(gallery.float(), dim=-1).T
    right = cosines.gather(1, label[:, None])
    return {"retrieval": (cosines.argmax(1) == label).float().mean(), "cosine": right.mean()}
