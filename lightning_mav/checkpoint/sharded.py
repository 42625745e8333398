"""The folder of a sharded checkpoint: every rank writes its part, one process can read all; reading runs no code.

torch.distributed.checkpoint (DCP) pickles what the folder holds (``.metadata``) and every value that is no tensor, and
by itself would load both with the full unpickler. Here the first goes through an unpickler that knows a handful of
classes and nothing else, and the second through ``weights_only``.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from pickle import Unpickler
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from lightning_mav.errors import CheckpointError, MachineError

KNOWN = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "TensorProperties",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        )
    ),
}
"""What ``.metadata`` may name, apart from tensor types: classes that hold data, and one look-up in a table."""


class _MetadataUnpickler(Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_dtype and (module, name) not in KNOWN:
            raise ValueError(f"it names {module}.{name}, which is no part of a checkpoint")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """Reads the parts of one folder; what they are is read and checked once, before anything else.

    Raises:
        CheckpointError: The list of parts is missing, damaged, names code, or points out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            with (folder / ".metadata").open("rb") as file:
                self.metadata: Metadata = _MetadataUnpickler(file).load()
            stored = self.metadata.storage_data.values()
            if outside := [part for part in stored if PurePath(part.relative_path).name != part.relative_path]:
                raise ValueError(f"it points to {outside[0].relative_path}")
            if any(part.transform_descriptors for part in stored):
                raise ValueError("its parts are encoded")
        except Exception as error:  # the unpickler fails in any way on bytes that are none of its own
            raise CheckpointError(f"{folder}/.metadata: not readable ({error}); use an older checkpoint") from error

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata


class _Planner(DefaultLoadPlanner):
    """DCP's own, but values that are no tensors are read with ``weights_only``."""

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        *parents, last = self.mappings[read_item.dest_index.fqn]
        place: Any = self.original_state_dict
        for key in parents:
            place = place[key]
        place[last] = torch.load(value, weights_only=True)


def write_shards(state: dict[str, Any], folder: Path) -> None:
    """Write this rank's part of a nested state into ``folder``, synced; all ranks call it together.

    Raises:
        MachineError: One of them could not write, on every rank.
    """
    try:
        save(state, storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:
        raise MachineError(
            f"cannot write {folder}: {_first(error)}; free some space or choose another folder"
        ) from error


def load_shards(state: dict[str, Any], folder: Path, alone: bool = False) -> None:
    """Fill the tensors and values of a nested state from ``folder``.

    Args:
        state: Of any other sharding than the one written, also none.
        folder: The checkpoint.
        alone: Without the other ranks; otherwise all call it together.

    Raises:
        CheckpointError: A part is missing, damaged, holds more than plain values or does not fit.
    """
    reader = _Reader(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            load(state, storage_reader=reader, planner=_Planner(), no_dist=alone)
        except CheckpointException as error:
            raise CheckpointError(f"{folder}: not readable ({_first(error)}); use an older checkpoint") from error


def read_shards(folder: Path, on_meta: bool = False, optimizer: bool = True) -> dict[str, Any]:
    """Return "state_dict" and, if asked, "optimizer_states" as they stand in a checkpoint of one file.

    Args:
        folder: The checkpoint.
        on_meta: Weights have sizes but no memory; no part is opened.
        optimizer: Read the optimiser's state too.

    Raises:
        CheckpointError: As in ``load_shards``.
    """
    metadata = _Reader(folder).metadata
    paths: dict[str, tuple[Any, ...]] = metadata.planner_data
    state: dict[str, Any] = {}
    for key, item in metadata.state_dict_metadata.items():
        if paths[key][0] == "state_dict" or (optimizer and not on_meta):
            state[key] = _empty(item, "meta" if on_meta else "cpu")
    if not on_meta:
        load_shards(state, folder, alone=True)
    nested = _nested(state, paths)
    states = [nested[name] for name in sorted(nested) if name.startswith("optimizer_")]
    return {"state_dict": nested["state_dict"], "optimizer_states": [_as_saved(state) for state in states]}


def _empty(item: Any, device: str) -> Any:
    is_tensor = isinstance(item, TensorStorageMetadata)
    return torch.empty(item.size, dtype=item.properties.dtype, device=device) if is_tensor else None


def _nested(flat: Mapping[str, Any], paths: Mapping[str, tuple[Any, ...]]) -> dict[Any, Any]:
    """Put every value where its path says, lists as dictionaries of numbers."""
    tree: dict[Any, Any] = {}
    for key, value in flat.items():
        *parents, last = paths[key]
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def _as_saved(state: dict[str, Any]) -> dict[str, Any]:
    groups = state["param_groups"]
    return {"state": state.get("state", {}), "param_groups": [groups[number] for number in sorted(groups)]}


def _first(error: CheckpointException) -> str:
    """Return the message of the first rank that failed, on one line."""
    failure = next(iter(error.failures.values()))[0]
    return " ".join(f"{type(failure).__name__}: {failure}".split())
