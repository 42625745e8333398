"""Reading other projects' weight files: raw .pt, Lightning .ckpt, safetensors, and folders of (sharded) files.

Nothing in a file is ever run, and large files are mapped rather than read at once.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lightning_mav.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin")


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file or folder by name; a bare (mean, deviation) pair is called ``0`` and ``1``.

    Raises:
        CheckpointError: Nothing there, damaged, holds code, or names a tensor twice.
    """
    files = _files(Path(path))
    tensors: dict[str, Tensor] = {}
    for file in files:
        part = _of_file(file)
        if twice := set(part) & set(tensors):
            raise CheckpointError(f"{file}: {sorted(twice)[0]} is in another file of {path} too; keep one set of files")
        tensors |= part
    return tensors


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; fetch it, or correct --source")
    for suffix in SUFFIXES:
        found = sorted(file for file in path.glob(f"*{suffix}") if ".fp16." not in file.name)
        if found:
            _check_whole(path, found)
            return found
    raise CheckpointError(f"{path}: no weights there; give a file or folder of {', '.join(SUFFIXES)}")


def _check_whole(folder: Path, found: list[Path]) -> None:
    """Compare with a sharded folder's index, so that a shard that was not fetched is missed."""
    for index in folder.glob("*.index.json"):
        wanted = _shards_of(index)
        if missing := sorted(wanted - {file.name for file in found} if found[0].suffix in str(wanted) else set()):
            raise CheckpointError(f"{folder}: lacks {missing[0]}, which {index.name} names; fetch it too")


def _shards_of(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{index}: truncated, or no index of weights; fetch it again") from error


def _of_file(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file}: is no file; name the folder or file with the weights")
    if _is_text(file):
        raise CheckpointError(f"{file}: is text (a web page, or a Git LFS pointer?), no weights; fetch the file itself")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = _unpickled(file)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{file}: truncated, empty or no weights file; fetch it again") from error
    except Exception as error:  # the unpickler refuses what is neither tensor nor plain value, in many ways
        raise CheckpointError(f"{file}: holds more than tensors, and is not run; get it as safetensors") from error
    return _tensors(content, file)


def _unpickled(file: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's protocol, before it is refused
        return torch.load(file, map_location="cpu", weights_only=True, mmap=_can_be_mapped(file))


def _is_text(file: Path) -> bool:
    """Tell whether a file begins as no format of weights does: with nothing but printable ASCII."""
    with file.open("rb") as start:
        head = start.read(256)
    return bool(head) and head.isascii() and all(char.isprintable() or char.isspace() for char in head.decode())


def _can_be_mapped(file: Path) -> bool:
    """Tell whether a file has torch's zip format, which older ones have not."""
    with file.open("rb") as start:
        return start.read(2) == b"PK"


def _tensors(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    if isinstance(content, (list, tuple)):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: holds no plain table of weights; give the file of the network's weights")
    return {str(key): value for key, value in content.items()}
