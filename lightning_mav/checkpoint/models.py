"""Saving, loading and handing over models: a folder of config.json and model.safetensors, or a run's checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lightning_mav.checkpoint.config import from_plain, to_plain
from lightning_mav.checkpoint.ema import Weights, model_state
from lightning_mav.checkpoint.io import FORMAT, read_checkpoint, write_atomically
from lightning_mav.checkpoint.resolve import ResolvedModel, resolve_model
from lightning_mav.errors import CheckpointError, ConfigError
from lightning_mav.models import MODELS
from lightning_mav.networks.pseudo3d import is_temporal
from lightning_mav.ranges import check_ranges

OUTPUT = "network.out.2."  # the last layer of a U-Net
# What building from wrong values raises.
UNFIT = (ConfigError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
IMAGE_EMBEDDING = ("network.cf_param", "network.clip_emb.")  # how a U-Net adds an image embedding to the timestep's


def describe(model: nn.Module) -> dict[str, Any]:
    """Return name, format version and configuration of a model as plain containers."""
    return {"model": model.name, "format": FORMAT, "config": to_plain(model.config)}


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Write a model folder: model.safetensors, then config.json, each whole or not at all."""
    folder = Path(folder)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda file: file.write(save(state)))
    write_atomically(folder / "config.json", lambda file: file.write(json.dumps(describe(model), indent=2).encode()))


def load_model(path: str | Path, expected: str | None = None) -> nn.Module:
    """Load a model in evaluation mode, with averaged weights where a checkpoint holds them.

    Args:
        path: A run folder, a .ckpt file or a model folder.
        expected: Name of the model that is wanted, for example "prior"; None accepts any.

    Raises:
        CheckpointError: Nothing there, damaged, or another model.
    """
    description, state = read_model(path, expected)
    model = _build(description, path)
    _load_strictly(model, state, path)
    return model.eval().requires_grad_(False)


def load_to_save(path: str | Path, weights: Weights = "averaged") -> nn.Module:
    """Load a model whose weights may be looked at and saved; it takes the memory of the weights alone, and cannot run.

    Raises:
        CheckpointError: Nothing there, damaged, or raw weights of a folder that has none.
    """
    description, state = read_model(path, weights=weights)
    with torch.device("meta"):
        model = _build(description, path)
    _load_strictly(model, state, path, assign=True)
    return model


def _build(description: dict[str, Any], path: str | Path) -> nn.Module:
    model_class: Any = MODELS[description["model"]]
    try:
        model: nn.Module = model_class(config_of(description, path))
    except UNFIT as error:
        raise CheckpointError(f"{path}: no network has its configuration ({error}); export it again") from error
    return model


def config_of(description: dict[str, Any], path: str | Path) -> Any:
    """Return the configuration that a description of the model at ``path`` holds.

    Raises:
        CheckpointError: It is of another version, or damaged.
    """
    try:
        check_ranges({"model": {"config": description["config"]}})
        return from_plain(MODELS[description["model"]].config_class, description["config"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except UNFIT as error:
        raise CheckpointError(f"{path}: its configuration is damaged ({error}); export it again") from error


def read_model(
    path: str | Path, expected: str | None = None, weights: Weights = "averaged"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a model's description and its weights, without building it."""
    found = _single(path)
    if found.kind == "checkpoint":
        description, state = _from_checkpoint(found.path, weights)
    elif weights == "averaged":
        description, state = _from_folder(found.path)
    else:
        raise CheckpointError(f"{path}: is no run and holds one set of weights; leave out --weights {weights}")
    _check_name(description, found.path, expected)
    return description, state


def read_description(path: str | Path, expected: str | None = None) -> dict[str, Any]:
    """Return a model's description alone; its weights need no memory and are not looked at."""
    found = _single(path)
    if found.kind == "checkpoint":
        description, _ = _from_checkpoint(found.path, "averaged", map_location="meta")
    else:
        description = _description(found.path)
    _check_name(description, found.path, expected)
    return description


def _single(path: str | Path) -> ResolvedModel:
    found = resolve_model(path)
    if found.kind == "pipeline":
        raise CheckpointError(f"{path}: is a folder of several models; name one of them, for example {path}/decoder")
    return found


def _check_name(description: dict[str, Any], path: Path, expected: str | None) -> None:
    name = description["model"]
    if name not in MODELS or (expected and name != expected):
        raise CheckpointError(f"{path}: holds the model {name}, expected {expected or ' or '.join(MODELS)}")


def hand_over(path: str | Path, model: nn.Module) -> list[str]:
    """Start ``model`` from the weights at ``path`` and return the names of parameters that keep their fresh values.

    Those may only be temporal ones, fps ones and extra input channels: a 2D network inflated to space and time starts
    as exactly that network on each frame (paper section 3.2). A model that is to learn its variance takes the mean's
    weights, and starts halfway between the two fixed variances. A network that had no image embedding takes one whose
    weights start at zero.

    Raises:
        CheckpointError: A weight does not fit, is unknown, or one that is no temporal one is missing.
    """
    description, state = read_model(path)
    own = model.state_dict()
    state = {key: _with_variance(key, value, own.get(key)) for key, value in state.items()}
    pairs = [(key, value.shape, own[key].shape) for key, value in state.items() if key in own]
    wrong = [f"{key} {tuple(given)} for {tuple(wanted)}" for key, given, wanted in pairs if given != wanted]
    unknown = [key for key in state if key not in own]
    missing = [key for key in own if key not in state]
    silent = [key for key in missing if key.startswith(IMAGE_EMBEDDING)] if _knows_no_image(description) else []
    needed = [key for key in missing if not is_temporal(key.removeprefix("network.")) and key not in silent]
    for problem, keys in (("sizes differ", wrong), ("unknown weights", unknown), ("missing weights", needed)):
        if keys:
            raise CheckpointError(
                f"{path}: the {description['model']} there does not fit this {model.name}: {problem}: "
                f"{', '.join(keys[:3])} ({len(keys)} in all); "
                "give init_from a model of the same network"
            )
    model.load_state_dict(state | {key: own[key].new_zeros(own[key].shape) for key in silent}, strict=False)
    return missing


def _knows_no_image(description: dict[str, Any]) -> bool:
    return description["config"].get("network", {}).get("image_embedding_dim") is None


def _with_variance(key: str, value: Tensor, fresh: Tensor | None) -> Tensor:
    """Put an output layer's weights before ``fresh`` ones for as many channels of learned variance, if there are."""
    if fresh is None or not key.startswith(OUTPUT) or len(fresh) != 2 * len(value):
        return value
    wider = fresh.detach().to(value, copy=True)
    wider[tuple(slice(size) for size in value.shape)] = value
    return wider


def _load_strictly(model: nn.Module, state: dict[str, Tensor], path: str | Path, assign: bool = False) -> None:
    try:
        model.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise CheckpointError(f"{path}: weights do not match their configuration: {first}") from error


def _from_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    description = _description(folder)
    try:
        return description, load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, error) from error


def _description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / "config.json").read_text())
        description["model"] = str(description["model"])
        dict(description["config"])
        return description
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder}: not a readable model folder ({error}); export it again")


def _from_checkpoint(
    path: Path, weights: Weights, map_location: str = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    checkpoint = read_checkpoint(path, map_location=map_location, optimizer=False)
    if not isinstance(checkpoint.get("model"), dict):
        raise CheckpointError(f"{path}: was not written by one of this project's stages")
    return checkpoint["model"], model_state(checkpoint["state_dict"], weights)
