"""One resolver for every place where a model is asked for: run folder, .ckpt file, model folder, pipeline folder."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_mav.checkpoint.digest import marker_of
from lightning_mav.errors import CheckpointError

STAGE_FOLDERS = (
    "clip",
    "prior",
    "decoder",
    "decoder_video",
    "interpolation",
    "sr_spacetime",
    "sr_spacetime_video",
    "sr_spatial",
)
LOOKED_FOR = "checkpoints/step=*.ckpt, config.json with model.safetensors, or sub-folders such as prior and decoder"


@dataclass(frozen=True)
class ResolvedModel:
    """What a path stands for.

    Attributes:
        kind: "checkpoint" (of a run, or a single file), "model" (exported folder) or "pipeline" (folder of those).
        path: The .ckpt file, the model folder or the pipeline folder.
        run: The run folder that the checkpoint belongs to, if it does.
    """

    kind: Literal["checkpoint", "model", "pipeline"]
    path: Path
    run: Path | None = None


def resolve_model(path: str | Path) -> ResolvedModel:
    """Say what ``path`` stands for, without opening any weights.

    Raises:
        CheckpointError: Nothing of the kind is there; the message names the path and what was looked for.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; give a run folder, a .ckpt file or a model folder")
    if path.is_file() or path.suffix == ".ckpt":  # a sharded checkpoint is a folder
        return _resolve_file(path)
    if newest := newest_checkpoint(path):
        return ResolvedModel("checkpoint", newest, run=path)
    if _is_model_folder(path):
        return ResolvedModel("model", path)
    if any(_holds_model(path / name) for name in STAGE_FOLDERS):
        return ResolvedModel("pipeline", path)
    raise CheckpointError(f"{path}: holds no model; looked for {LOOKED_FOR}")


def newest_checkpoint(run: str | Path) -> Path | None:
    """Return the checkpoint with the most steps in a run folder, None if there is none."""
    committed = committed_checkpoints(Path(run) / "checkpoints")
    return committed[-1] if committed else None


def committed_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints in a run's folder of checkpoints, those with a marker, the newest last.

    Raises:
        CheckpointError: There are only files without one, as a version before the markers wrote them.
    """
    found = sorted(folder.glob("step=*.ckpt"), key=step_of)
    committed = [path for path in found if marker_of(path).is_file()]
    files = [path for path in found if path.is_file()]
    if files and not committed:
        raise CheckpointError(
            f"{files[-1]}: has no .sha256 beside it, as older versions wrote none; if you trust the file:"
            f" cd {folder} && sha256sum {files[-1].name} > {marker_of(files[-1]).name}"
        )
    return committed


def step_of(checkpoint: Path) -> int:
    """Return the number of optimiser steps in a checkpoint's file name, -1 if it has none."""
    match = re.fullmatch(r"step=(\d+)", checkpoint.stem)
    return int(match[1]) if match else -1


def _resolve_file(path: Path) -> ResolvedModel:
    if path.suffix != ".ckpt":
        raise CheckpointError(f"{path}: not a .ckpt file; give a run folder, a .ckpt file or a model folder")
    in_run = path.parent.name == "checkpoints"
    return ResolvedModel("checkpoint", path, run=path.parent.parent if in_run else None)


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def _holds_model(path: Path) -> bool:
    return newest_checkpoint(path) is not None or _is_model_folder(path)
