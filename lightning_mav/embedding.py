"""Captioned images become CLIP embeddings on disk, so that the prior need not encode each image in every epoch."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.data.embeddings import RECORD, Record, write_embeddings
from lightning_mav.data.images import open_images
from lightning_mav.data.listing import Split
from lightning_mav.data.loading import batch_loader
from lightning_mav.data.resuming import claim
from lightning_mav.networks.encoders import ClipEncoder
from lightning_mav.stages.clip import CaptionedImages

SPLITS: tuple[Split, ...] = ("train", "val")
Encoded = tuple[Tensor, Tensor, list[str]]  # embeddings (n, D) of images and of texts, and the texts


def embed(
    source: str,
    clip: ClipEncoder,
    out: Path,
    size: int,
    batch_size: int,
    samples_per_shard: int,
    num_workers: int = 0,
    device: str = "cpu",
) -> Record:
    """Write the embeddings of a source; shards that are there are complete and not made again.

    Args:
        source: Captioned images, see ``data.images.open_images``.
        clip: The frozen CLIP.
        out: Folder to write.
        size: Height and width of the images that the CLIP gets, as ``data.size`` of a prior's configuration.
        batch_size: Images encoded at once.
        samples_per_shard: Samples in each shard but the last of its split.
        num_workers: Processes that read images.
        device: Where to compute.

    Raises:
        DataError: An image cannot be used or has no caption, or ``out`` holds embeddings of something else.
    """
    sets = {split: CaptionedImages(open_images(source, split, size), size, seed=0) for split in SPLITS}
    lengths = {split: len(images) for split, images in sets.items()}
    record = Record(source, clip.fingerprint, size, samples_per_shard, **lengths)
    claim(out / RECORD, asdict(record), "embeddings of other images or by another CLIP")
    for split, images in sets.items():
        parts = {out / name: part for name, part in record.shards(split).items() if not (out / name).exists()}
        batches = {path: _batches(part, batch_size) for path, part in parts.items()}
        loader = batch_loader(images, [batch for part in batches.values() for batch in part], num_workers)
        with tqdm(total=sum(map(len, parts.values())), desc=f"embedding {split}", unit="image") as bar:
            encoded = _encoded(loader, clip, device, bar)
            for path, part in batches.items():
                write_embeddings(path, *_joined(islice(encoded, len(part))))
    return record


def _batches(samples: range, batch_size: int) -> list[list[tuple[int, int]]]:
    """Return the keys of a shard's samples in batches that depend on this shard alone."""
    keys = [(i, i) for i in samples]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


def _encoded(loader: DataLoader[dict[str, Any]], clip: ClipEncoder, device: str, bar: Any) -> Iterator[Encoded]:
    for batch in loader:
        image = clip.encode_image(batch["image"].to(device))
        text = clip.encode_text(batch["caption"]).embedding
        bar.update(len(image))
        yield image.cpu(), text.cpu(), batch["caption"]


def _joined(parts: Iterable[Encoded]) -> Encoded:
    image, text, captions = zip(*parts, strict=True)
    return torch.cat(image), torch.cat(text), list(chain(*captions))
