"""Embeddings of captioned images, made once by a frozen CLIP: safetensors shards that are read by index.

A shard ``SPLIT-00000.safetensors`` holds ``image_embedding`` and ``text_embedding`` (n, D), and the captions as one
run of bytes with the places where they end. A record beside the shards says how many there are, and of which CLIP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.listing import Split
from lightning_mav.data.resuming import read_claim
from lightning_mav.errors import DataError

RECORD = "embeddings.json"


@dataclass(frozen=True)
class Record:
    """What a folder of embeddings holds.

    Attributes:
        source: The images that were embedded.
        clip: Fingerprint of the CLIP.
        size: Height and width that the images had, in pixels.
        samples_per_shard: Samples in each shard but the last of its split.
        train: Samples for training.
        val: Held-out samples.
    """

    source: str
    clip: str
    size: int
    samples_per_shard: int
    train: int
    val: int

    def shards(self, split: Split) -> dict[str, range]:
        """Return the names of a split's shards, with the samples that each holds."""
        num, each = getattr(self, split), self.samples_per_shard
        starts = enumerate(range(0, num, each))
        return {f"{split}-{i:05d}.safetensors": range(start, min(start + each, num)) for i, start in starts}


def read_record(folder: str | Path) -> Record | None:
    """Return what a folder of embeddings holds, or None if it is no such folder.

    Raises:
        DataError: The record is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    try:
        return Record(**read_claim(path))
    except TypeError as error:
        raise DataError(f"{path}: damaged; run data embed again into an empty folder") from error


def write_embeddings(path: Path, image: Tensor, text: Tensor, captions: Sequence[str]) -> None:
    """Write a shard: embeddings of images and of their captions, (n, D) each, float32."""
    encoded = [caption.encode() for caption in captions]
    tensors = {
        "image_embedding": image.float().contiguous(),
        "text_embedding": text.float().contiguous(),
        "captions": torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8),
        "caption_ends": torch.tensor(list(accumulate(map(len, encoded)))),
    }
    write_atomically(path, lambda file: file.write(save(tensors)))


class EmbeddedImages(Dataset[dict[str, Any]]):
    """Embeddings of captioned images, read by (index, position) pairs.

    Args:
        folder: Where they lie.
        split: "train" or "val", as the source was divided when they were made.

    A sample holds ``image_embedding`` float32 (D,), ``caption``, ``index`` and ``position``.

    Raises:
        DataError: Shards are missing.
    """

    def __init__(self, folder: str, split: Split) -> None:
        record = read_record(folder)
        assert record is not None
        self.each, self.num = record.samples_per_shard, getattr(record, split)
        self.shards = [Path(folder) / name for name in record.shards(split)]
        if missing := [shard for shard in self.shards if not shard.is_file()]:
            raise DataError(f"{missing[0]}: missing, of {len(self.shards)} shards; run data embed again to finish them")

    def __len__(self) -> int:
        return int(self.num)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        embedding, caption = self._read(index)
        return {"image_embedding": embedding, "caption": caption, "index": index, "position": position}

    def _read(self, index: int) -> tuple[Tensor, str]:
        number, place = divmod(index, self.each)
        try:
            with safe_open(self.shards[number], "pt") as shard:
                ends = shard.get_slice("caption_ends")
                start, end = int(ends[place - 1]) if place else 0, int(ends[place])
                caption = bytes(shard.get_slice("captions")[start:end].tolist()).decode()
                return shard.get_slice("image_embedding")[place], caption
        except Exception as error:  # safetensors has errors of its own kind
            raise DataError(f"{self.shards[number]}: damaged; remove it and run data embed again") from error
