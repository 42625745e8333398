"""The run folder: one place for config, checkpoints, logs and samples, and what may change between two of its runs."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_mav.checkpoint.digest import MARKER, marker_of, verify
from lightning_mav.checkpoint.io import TEMPORARY_PREFIX
from lightning_mav.checkpoint.resolve import committed_checkpoints, newest_checkpoint
from lightning_mav.errors import CheckpointError, ConfigError, MachineError

# The other arguments of the Trainer are length, logging and hardware, which may change.
FIXED_TRAINER_KEYS = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
# These change no sound step; data.batch_size with the number of devices is compared by the data module itself.
FREE_KEYS = (
    *(f"data.{key}" for key in ("num_workers", "timeout", "batch_size", "on_error", "skip_budget")),
    *(f"model.{key}" for key in ("on_nan", "max_skipped")),
)
STAGE_KEYS = ("model.class_path:", "data.class_path:")
DAMAGED = ".damaged"  # ends the name of a checkpoint that is set aside
SHOWN = 8  # differences that a refusal names


@dataclass(frozen=True)
class RunFolder:
    """The folder that ``--run`` names.

    Attributes:
        path: The folder; holds config.yaml, checkpoints/, logs/ and samples/.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of step=NNNNNN.ckpt files and last.ckpt."""
        return self.path / "checkpoints"

    @property
    def config(self) -> Path:
        """The configuration of the run, as it was last started."""
        return self.path / "config.yaml"

    def newest(self) -> Path | None:
        """Return the newest checkpoint, None in a fresh folder."""
        return newest_checkpoint(self.path)

    def damaged(self) -> list[Path]:
        """Return the newest checkpoints whose bytes are not those that were written, down to the first that is whole.

        Raises:
            CheckpointError: None is whole.
        """
        damaged: list[Path] = []
        for checkpoint in reversed(committed_checkpoints(self.checkpoints)):
            try:
                verify(checkpoint)
                return damaged
            except CheckpointError:
                damaged.append(checkpoint)
        if damaged:
            raise CheckpointError(f"{self.path}: none of its {len(damaged)} checkpoints is whole; choose another --run")
        return []

    def set_aside(self, checkpoint: Path) -> None:
        """Rename a damaged checkpoint, so that it neither counts nor is overwritten."""
        marker_of(checkpoint).rename(f"{marker_of(checkpoint)}{DAMAGED}")
        checkpoint.rename(f"{checkpoint}{DAMAGED}")

    def newest_or_fail(self) -> Path:
        """Return the newest checkpoint.

        Raises:
            CheckpointError: There is none.
        """
        if newest := self.newest():
            return newest
        raise CheckpointError(f"{self.path}: holds no checkpoint; train it with fit --run {self.path} first")

    def prepare(self) -> None:
        """Create the folder and prove that it can be written.

        Raises:
            MachineError: Nothing can be written there.
        """
        try:
            for folder in (self.checkpoints, self.path / "samples"):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise MachineError(
                f"{self.path}: cannot write to the run folder ({error}); choose another --run"
            ) from error

    def clear(self) -> None:
        """Remove what a killed run left half written; only who holds the lock may, as another may be writing."""
        for leftover in self._leftovers():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _leftovers(self) -> list[Path]:
        """Return what a killed run left half written, or half removed."""
        partial = self.checkpoints.glob(f"{TEMPORARY_PREFIX}*")
        markers = [one for one in self.checkpoints.glob(f"*{MARKER}") if not one.with_suffix("").exists()]
        folders = [one for one in self.checkpoints.glob("step=*.ckpt") if one.is_dir() and not marker_of(one).is_file()]
        return [*partial, *markers, *folders]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, so that a second run cannot write into it; the lock of a dead process is free again.

        Raises:
            MachineError: Another process trains in this folder.
        """
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise MachineError(f"{self.path}: in use by {owner}; wait for it or choose another --run") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def check_unchanged(self, config: dict[str, Any]) -> None:
        """Compare ``config`` with the run's own.

        Raises:
            ConfigError: A hyper-parameter differs; the message shows each as "key: old -> new".
        """
        if not self.config.is_file():
            return
        changes = differences(yaml.safe_load(self.config.read_text()), config)
        if other := [change for change in changes if change.startswith(STAGE_KEYS)]:
            raise ConfigError(f"{self.path} is a run of another kind: {', '.join(other)}; choose another --run")
        if changes:
            more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            raise ConfigError(
                f"{self.path} was trained with other settings: {', '.join(changes[:SHOWN])}{more}; "
                f"start a new run with --model.init_from {self.path}"
            )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return "key: old -> new" for every hyper-parameter in which two run configurations differ."""
    before, after = hyperparameters(old), hyperparameters(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Return, flat, the settings that determine what a run computes."""
    trainer = config.get("trainer") or {}
    fixed = {
        "seed_everything": config.get("seed_everything"),
        "trainer": {key: trainer.get(key) for key in FIXED_TRAINER_KEYS},
        "model": config.get("model"),
        "data": config.get("data"),
    }
    return {key: value for key, value in flat(fixed).items() if key not in FREE_KEYS}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"model.lr": ...} for {"model": {"init_args": {"lr": ...}}}, as the command line calls it."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        key = prefix if name == "init_args" else f"{prefix}.{name}".lstrip(".")
        leaves |= flat(value, key) if isinstance(value, dict) else {key: value}
    return leaves
