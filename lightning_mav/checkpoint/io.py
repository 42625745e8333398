"""Checkpoint files: written whole or not at all, read without running code."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from lightning_mav.checkpoint.digest import Hashing, digests_of, marker_lines, marker_of, verify
from lightning_mav.errors import CheckpointError, ConfigError, MachineError

FORMAT = 1
META = "meta.pt"  # in the folder of a sharded checkpoint: all but weights and moments
TEMPORARY_PREFIX = ".partial-"


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a file that takes the name ``path`` only when all of it is on the disk.

    Raises:
        MachineError: The file cannot be written; what stood at ``path`` before is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise MachineError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    finally:
        if temporary:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill that takes the name ``path`` only when the ``with`` block has ended well.

    Raises:
        ConfigError: Something is there already; it is not touched.
        MachineError: The folder cannot be written.
    """
    path, temporary = Path(path), None
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ConfigError(f"{path}: is there already and not empty; remove it or choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint atomically, stamped with the format version, and its marker before it takes its name."""
    path = Path(path)

    def write(file: IO[bytes]) -> None:
        hashing = Hashing(file)
        torch.save({**checkpoint, "format": FORMAT}, hashing)  # type: ignore[arg-type]  # it only writes
        _write_marker(path, {path.name: hashing.hexdigest()})

    write_atomically(path, write)


def write_meta(rest: dict[str, Any], folder: Path) -> None:
    """Write what of a sharded checkpoint is in no shard, stamped with the format version."""
    write_atomically(folder / META, lambda file: torch.save({**rest, "format": FORMAT}, file))


def commit_folder(path: str | Path) -> None:
    """Write the marker of a checkpoint that is a folder, when all processes have written their files."""
    _write_marker(Path(path), digests_of(Path(path)))


def _write_marker(checkpoint: Path, digests: dict[str, str]) -> None:
    write_atomically(marker_of(checkpoint), lambda file: file.write(marker_lines(digests)))


def remove_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint and its marker, in the order that never leaves a part of it that counts."""
    path = Path(path)
    if path.is_dir():
        marker_of(path).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
        marker_of(path).unlink(missing_ok=True)


def read_checkpoint(
    path: str | Path, stage: str | None = None, map_location: Any = "cpu", optimizer: bool = True
) -> dict[str, Any]:
    """Read a local checkpoint with ``weights_only=True``; a sharded one is put together.

    Args:
        path: The .ckpt file or folder.
        stage: Name of the stage that the checkpoint must belong to; None accepts any.
        map_location: As in ``torch.load``; shards go to "cpu" or "meta".
        optimizer: Read the optimiser's state too where it can be left out, which is in a sharded checkpoint.

    Raises:
        CheckpointError: A URL, a missing, damaged or unsafe file, or the checkpoint of another stage.
    """
    if re.match(r"\w+://", str(path)):
        raise CheckpointError(f"{path}: checkpoints are read from local files only; download it first")
    path = Path(path)
    file = path / META if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    verify(path)
    try:
        checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler fails in any way on bytes that are no checkpoint
        raise CheckpointError(f"{path}: not a readable checkpoint ({_reason(error)})") from error
    if path.is_dir() and isinstance(checkpoint, dict):
        from lightning_mav.checkpoint.sharded import read_shards  # imports much, for few

        checkpoint |= read_shards(path, on_meta=map_location == "meta", optimizer=optimizer)
    _check(checkpoint, path, stage)
    return dict(checkpoint)


def _reason(error: Exception) -> str:
    """Return the first sentence of torch's message; the rest advises unsafe loading."""
    if isinstance(error, UnpicklingError) and "weights_only" in str(error).lower():
        return "it holds more than tensors and plain values, or is not a checkpoint at all"
    return "the file is truncated, empty or not a checkpoint"


def _check(checkpoint: Any, path: str | Path, stage: str | None) -> None:
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: holds no training state; pass it as --model.init_from if it holds weights")
    if checkpoint.get("format", FORMAT) > FORMAT:
        raise CheckpointError(f"{path}: format {checkpoint['format']} is newer than {FORMAT}; update lightning_mav")
    found = checkpoint.get("stage")
    if stage and found and found != stage:
        raise CheckpointError(f"{path}: is a checkpoint of stage {found}, expected {stage}")


class SafeCheckpointIO(CheckpointIO):
    """What Lightning saves and loads with: atomic, local, ``weights_only`` and stamped with the stage's name."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all."""
        write_checkpoint({**checkpoint, "stage": self.stage}, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of this stage; ``weights_only`` is always true, whatever is asked for."""
        return read_checkpoint(path, self.stage, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one checkpoint."""
        remove_checkpoint(path)
