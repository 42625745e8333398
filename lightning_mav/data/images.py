"""Images with captions: the ``ImageSource`` protocol, its sources, and the data set that training reads."""

from typing import Any, Literal, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from lightning_mav.data.moving_shapes import MovingShapeImages
from lightning_mav.data.transforms import Augmentation, prepare
from lightning_mav.seeding import generator


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


class ImageDataset(Dataset[dict[str, Any]]):
    """Square training images, read by (index, position) pairs.

    Args:
        source: where the images come from.
        size: height and width of a sample in pixels.
        seed: seed of the augmentation.
        augment: see ``transforms.prepare``.

    A sample holds ``image`` float32 (3, size, size) in [-1, 1], ``index``, ``position``, and ``caption`` where known.
    """

    def __init__(self, source: ImageSource, size: int, seed: int, augment: Augmentation = "none") -> None:
        self.source, self.size, self.seed = source, size, seed
        self.augment: Augmentation = augment

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        draw = generator("augment", self.seed, index, position)
        video = prepare(self.source.image(index)[None], self.size, self.augment, draw)
        sample = {"image": video[:, 0], "index": index, "position": position}
        caption = self.source.caption(index)
        return sample if caption is None else sample | {"caption": caption}


def open_images(source: str, split: Literal["train", "val"], size: int) -> ImageSource:
    """Return the images that a config's ``source`` names.

    Args:
        source: "moving_shapes", or the path of a folder or of a csv or jsonl list.
        split: "val" is a small part that training never sees; for moving shapes, the held-out captions.
        size: height and width of rendered images; files keep their own size.
    """
    assert source == "moving_shapes"
    return MovingShapeImages("train", 100_000, 0, size) if split == "train" else MovingShapeImages("test", 512, 0, size)
