"""Pretrained weights by name: where a file may lie, how it is recognised, and what to do without it.

Nothing is ever downloaded: the error says where the file is published.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_mav.errors import CheckpointError

FILE = Path(__file__).with_name("weights.yaml")
VARIABLE = "LIGHTNING_MAV_WEIGHTS"


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        name: What configurations call it.
        what: What it is.
        filenames: Names it is published under.
        published: Where.
        licence: Of the file.
        sha256: Accepted checksums, or their beginnings where only those are published.
        git_blob: Accepted ids of ``git hash-object``.
        runs_code: Whether loading it runs code from the file (TorchScript).
    """

    name: str
    what: str
    filenames: tuple[str, ...]
    published: tuple[str, ...]
    licence: str
    sha256: tuple[str, ...] = ()
    git_blob: tuple[str, ...] = ()
    runs_code: bool = False

    @property
    def checksums(self) -> str:
        """The accepted checksums, as text."""
        known = [f"sha256 {value}" for value in self.sha256] + [f"git blob {value}" for value in self.git_blob]
        return " or ".join(known) or "no checksum is published"


@dataclass(frozen=True)
class WeightsFile:
    """A file that was found.

    Attributes:
        path: Where.
        sha256: Its checksum, for results to name.
        verified: Whether it is one of the accepted checksums; False where none is published.
    """

    path: Path
    sha256: str
    verified: bool


@cache
def registry() -> dict[str, Weights]:
    """Return all known weights by name."""
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Weights(name, **_tuples(row)) for name, row in rows.items()}


def find_weights(name: str, path: str | Path | None = None, trust: bool = False) -> WeightsFile:
    """Return the file of some weights: the given one, or the first found in ``search_folders``.

    Args:
        name: A key of ``registry``.
        path: Where the file is, if it is known.
        trust: Accept a file whose loading runs code though no checksum vouches for it.

    Raises:
        CheckpointError: Not found, of another checksum, or code that nothing vouches for.
    """
    weights = registry()[name]
    found = Path(path) if path else _first(weights)
    if found is None or not found.is_file():
        raise CheckpointError(_missing(weights, found))
    checked = _checked(weights, found)
    if weights.runs_code and not (checked.verified or trust):
        raise CheckpointError(
            f"{found}: loading TorchScript runs its code, and {weights.checksums}; "
            "set trust=true if you trust where it came from"
        )
    return checked


def search_folders() -> list[Path]:
    """Return where weights are looked for, in this order; the variable LIGHTNING_MAV_WEIGHTS names the first."""
    home = Path.home() / ".cache"
    hub = Path(torch.hub.get_dir())
    own = os.environ.get(VARIABLE)
    return [*([Path(own)] if own else []), hub / "checkpoints", hub.parent / "fidelity_cache", home / "clip"]


def overview() -> str:
    """Return a table of all known weights: what each is, whether it is here, and where it is published."""
    lines = [f"looked for in: {', '.join(map(str, search_folders()))}; {VARIABLE} puts a folder first"]
    for weights in registry().values():
        found = _first(weights)
        lines += ["", f"{weights.name}: {weights.what}", f"  file       {' or '.join(weights.filenames)}"]
        lines += [
            f"  here       {found or 'no'}",
            f"  checksum   {weights.checksums}",
            f"  licence    {weights.licence}",
        ]
        lines += [f"  published  {place}" for place in weights.published]
    return "\n".join(lines)


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _first(weights: Weights) -> Path | None:
    paths = (folder / name for folder in search_folders() for name in weights.filenames)
    return next((path for path in paths if path.is_file()), None)


def _missing(weights: Weights, path: Path | None) -> str:
    where = str(path) if path else ", ".join(map(str, search_folders()))
    return (
        f"{weights.name}: {' or '.join(weights.filenames)} ({weights.checksums}) is not in {where}; fetch it from "
        f"{' or '.join(weights.published)} and set {VARIABLE} to its folder"
    )


def _checked(weights: Weights, path: Path) -> WeightsFile:
    """Compare a file with the accepted checksums.

    Raises:
        CheckpointError: It has none of them.
    """
    sha256, git_blob = _digests(path, path.stat().st_size, path.stat().st_mtime_ns)
    verified = sha256.startswith(weights.sha256) if weights.sha256 else git_blob in weights.git_blob
    if not verified and (weights.sha256 or weights.git_blob):
        raise CheckpointError(
            f"{path}: is not {weights.name}: expected {weights.checksums}, found sha256 {sha256}, git blob {git_blob}; "
            f"fetch it again from {weights.published[0]}"
        )
    return WeightsFile(path, sha256, verified)


def sha256_of(path: Path) -> str:
    """Return the checksum of a file."""
    return _digests(path, path.stat().st_size, path.stat().st_mtime_ns)[0]


@cache
def _digests(path: Path, size: int, changed: int) -> tuple[str, str]:
    """Return sha256 and git blob id of a file; size and time of change only renew the cache."""
    sha256, git_blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            git_blob.update(block)
    return sha256.hexdigest(), git_blob.hexdigest()
