"""Images with captions: the ``ImageSource`` protocol, its sources, and the data set that training reads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mav.data.buckets import Buckets, Shape
from lightning_mav.data.listing import MAX_PIXELS, Entry, Split, list_files, read_caption, require_regular_file
from lightning_mav.data.manifest import Samples, manifest_of, read_manifest
from lightning_mav.data.moving_shapes import MovingShapeImages
from lightning_mav.data.transforms import Augmentation, prepare
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.seeding import generator

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


class ImageSource(Protocol):
    """Anything that holds numbered images; it must pickle, for the workers of a ``DataLoader``."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def image(self, index: int, /) -> Tensor:
        """Return an image, uint8 (H, W, 3)."""
        ...

    def caption(self, index: int, /) -> str | None:
        """Return its caption, or None where there is none."""
        ...

    def name(self, index: int, /) -> str:
        """Return what error messages call it."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Image files; captions come from the list, else from a text file beside the image with the same stem."""

    entries: list[Entry]

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Tensor:
        """Return image ``index``, uint8 (H, W, 3)."""
        return read_image(self.entries[index].path)

    def caption(self, index: int) -> str | None:
        """Return the caption of image ``index``, or None where there is none."""
        entry = self.entries[index]
        text = Path(entry.path).with_suffix(".txt")
        return entry.caption if entry.caption is not None or not text.exists() else read_caption(text)

    def name(self, index: int) -> str:
        """Return the path of image ``index``."""
        return self.entries[index].path


@dataclass(frozen=True)
class IndexedImages:
    """Images of a manifest, wherever their bytes lie."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Tensor:
        """Return image ``index``, uint8 (H, W, 3)."""
        sample = self.samples[index]
        return decode_image(io.BytesIO(sample.read()), sample.name)

    def caption(self, index: int) -> str | None:
        """Return the caption of image ``index``, or None where there is none."""
        return self.samples[index].caption

    def name(self, index: int) -> str:
        """Return the name of image ``index`` in the source that was indexed."""
        return self.samples[index].name


def read_image(path: str) -> Tensor:
    """Return an image file as ``decode_image`` does.

    Raises:
        DataError: not a regular file, not a readable jpg, png or webp, or larger than ``MAX_PIXELS``.
    """
    require_regular_file(path)
    return decode_image(path, path)


def decode_image(file: str | BinaryIO, name: str) -> Tensor:
    """Return an image upright, transparency on white, as uint8 (H, W, 3).

    Args:
        file: path or opened file.
        name: what error messages call it.

    Raises:
        DataError: not a readable jpg, png or webp, or larger than ``MAX_PIXELS``.
    """
    try:
        with Image.open(file, formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name}: {image.width} x {image.height} pixels is too large; shrink it or remove it")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return torch.from_numpy(np.array(upright.convert("RGB")))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be read as jpg, png or webp; remove it or convert it") from error


class ImageDataset(Dataset[dict[str, Any]]):
    """Training images, read by (index, position) pairs, one by one or in batches; a subclass changes ``sample``.

    Args:
        source: where the images come from.
        size: height and width of a sample in pixels.
        seed: seed of the augmentation.
        augment: see ``transforms.prepare``.
        buckets: whose heights and widths samples have instead; None for squares.

    A sample holds ``image`` float32 (3, size, size) in [-1, 1], ``index``, ``position``, and ``caption`` where known.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        seed: int,
        augment: Augmentation = "none",
        buckets: Buckets | None = None,
    ) -> None:
        if size < 1:
            raise ConfigError(f"data.size: expected at least 1 pixel, got {size}")
        self.source, self.size, self.seed = source, size, seed
        self.augment: Augmentation = augment
        self.buckets = buckets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return self.sample(key, self.source.image(key[0]))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return a batch of samples; moving shapes cost less if drawn together."""
        if type(self.source) is not MovingShapeImages:
            return [self[key] for key in keys]
        images = self.source.images([index for index, _ in keys])
        return [self.sample(key, image) for key, image in zip(keys, images, strict=True)]

    def sample(self, key: tuple[int, int], image: Tensor) -> dict[str, Any]:
        """Turn image (H, W, 3) uint8 into the sample that ``key`` names."""
        index, position = key
        draw = generator("augment", self.seed, index, position)
        shape = self.buckets.shape(index) if self.buckets else Shape(1, self.size, self.size)
        video = prepare(image[None], shape.height, shape.width, self.augment, draw)
        sample = {"image": video[:, 0], "index": index, "position": position}
        caption = self.caption(index)
        return sample if caption is None else sample | {"caption": caption}

    def caption(self, index: int) -> str | None:
        """Return the caption of image ``index``, or None where there is none."""
        return self.source.caption(index)


def open_images(source: str, split: Split, size: int) -> ImageSource:
    """Return the images that a config's ``source`` names.

    Args:
        source: "moving_shapes", or the path of a manifest, of a folder, or of a csv, jsonl or parquet list; in a folder
            that holds a manifest.jsonl, that counts.
        split: "val" is a small part that training never sees; for moving shapes, the held-out captions.
        size: height and width of rendered images; files keep their own size.
    """
    if source == "moving_shapes":
        scenes = MovingShapeImages("train", 100_000, 0, size)
        return scenes if split == "train" else MovingShapeImages("test", 512, 0, size)
    if manifest := manifest_of(source):
        return IndexedImages(read_manifest(manifest, "image", split))
    return ImageFiles(list_files(source, EXTENSIONS, split))
