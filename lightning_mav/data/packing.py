"""Writing a source as tar shards, in the layout of img2dataset and video2dataset."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.candidates import Candidate, candidates_of, suffix_of
from lightning_mav.data.resuming import claim
from lightning_mav.data.shards import Extent, write_shard
from lightning_mav.seeding import hashed_seed

RECORD = "pack.json"


@dataclass(frozen=True)
class Item:
    """What a shard holds of a candidate: the contents of its image or video, and their extension."""

    candidate: Candidate
    contents: Extent | bytes
    extension: str


def pack(source: str, out: Path, samples_per_shard: int) -> tuple[int, int]:
    """Write ``OUT/00000.tar`` and so on; shards that are there are complete and not written again.

    Args:
        source: See ``candidates.candidates_of``.
        out: Folder to write.
        samples_per_shard: Samples in each shard but the last.

    Returns:
        Numbers of samples and of shards.

    Raises:
        DataError: A file cannot be used, or ``out`` holds shards of something else.
    """
    shards = begin(out, list(candidates_of(source)), samples_per_shard)
    for path, candidates in tqdm(shards.items(), desc="packing", unit="shard"):
        if not path.exists():
            put(path, (Item(c, c.media, suffix_of(c.name)) for c in candidates), len(candidates))
    return sum(map(len, shards.values())), len(shards)


def begin(
    out: Path, candidates: Sequence[Candidate], samples_per_shard: int, **settings: float
) -> dict[Path, Sequence[Candidate]]:
    """Return what each shard will be made of; write down what is packed, or compare it with what was.

    Args:
        out: Folder to write.
        candidates: What is packed.
        samples_per_shard: Of these in each shard but the last.
        settings: What else decides the bytes of the shards.

    Raises:
        DataError: ``out`` holds shards of something else.
    """
    state = [(c.name, c.media.size, os.stat(c.media.file).st_mtime_ns, c.caption or "") for c in candidates]
    record = {"source": hashed_seed(repr(state)), "samples_per_shard": samples_per_shard, **settings}
    claim(out / RECORD, record, "shards of another source, or with other settings")
    starts = enumerate(range(0, len(candidates), samples_per_shard))
    return {out / f"{number:05d}.tar": candidates[start : start + samples_per_shard] for number, start in starts}


def put(path: Path, items: Iterable[Item], most: int) -> None:
    """Write one shard of at most so many items, whole or not at all."""
    write_atomically(path, partial(write_shard, members=_members(path.stem, items, most)))


def _members(shard: str, items: Iterable[Item], most: int) -> Iterator[tuple[str, Extent | bytes]]:
    """Yield the files of a shard; a key is the shard's number and the sample's within it."""
    digits = max(4, len(str(most - 1)))
    for place, item in enumerate(items):
        key, caption = f"{shard}{place:0{digits}d}", item.candidate.read_caption()
        yield key + item.extension, item.contents
        if caption is not None:
            yield f"{key}.txt", caption.encode()
        about = {"key": key, "name": item.candidate.name} | ({} if caption is None else {"caption": caption})
        yield f"{key}.json", json.dumps(about).encode()
