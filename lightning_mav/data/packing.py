"""Writing a source as tar shards, in the layout of img2dataset and video2dataset."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.candidates import Candidate, candidates_of
from lightning_mav.data.shards import Extent, write_shard
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.seeding import hashed_seed

RECORD = "pack.json"  # says what is packed here, so that a killed run can only go on with the same


def pack(source: str, out: Path, samples_per_shard: int) -> tuple[int, int]:
    """Write ``OUT/00000.tar`` and so on; shards that are there are complete and not written again.

    Args:
        source: See ``candidates.candidates_of``.
        out: Folder to write.
        samples_per_shard: Samples in each shard but the last.

    Returns:
        Numbers of samples and of shards.

    Raises:
        ConfigError: No samples per shard.
        DataError: A file cannot be used, or ``out`` holds shards of something else.
    """
    if samples_per_shard < 1:
        raise ConfigError(f"samples_per_shard: expected at least 1, got {samples_per_shard}")
    candidates = list(candidates_of(source))
    starts = range(0, len(candidates), samples_per_shard)
    _record(out, candidates, samples_per_shard)
    for number, start in enumerate(tqdm(starts, desc="packing", unit="shard")):
        path = out / f"{number:05d}.tar"
        if not path.exists():
            members = _members(candidates[start : start + samples_per_shard], number, len(str(samples_per_shard - 1)))
            write_atomically(path, partial(write_shard, members=members))
    return len(candidates), len(starts)


def _record(out: Path, candidates: Sequence[Candidate], samples_per_shard: int) -> None:
    """Write down what is packed, or compare it with what was."""
    state = [(c.name, c.media.size, os.stat(c.media.file).st_mtime_ns, c.caption or "") for c in candidates]
    record = {"source": hashed_seed(repr(state)), "samples": len(candidates), "samples_per_shard": samples_per_shard}
    path = out / RECORD
    if not path.exists():
        write_atomically(path, lambda file: file.write(json.dumps(record).encode()))
    elif json.loads(path.read_text()) != record:
        raise DataError(f"{out}: holds shards of another source, or of another size; choose an empty folder")


def _members(candidates: Sequence[Candidate], number: int, digits: int) -> Iterator[tuple[str, Extent | bytes]]:
    """Yield the files of a shard; a key is the shard's number and the sample's within it."""
    for place, candidate in enumerate(candidates):
        key = f"{number:05d}{place:0{max(4, digits)}d}"
        caption = candidate.read_caption()
        yield key + os.path.splitext(candidate.name)[1].lower(), candidate.media
        if caption is not None:
            yield f"{key}.txt", caption.encode()
        about = {"key": key, "name": candidate.name} | ({} if caption is None else {"caption": caption})
        yield f"{key}.json", json.dumps(about).encode()
