"""Exporting: models out of runs into folders to share, each written whole or not at all, and with a card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import nn

from lightning_mav.checkpoint.clip import FOREIGN
from lightning_mav.checkpoint.config import to_plain
from lightning_mav.checkpoint.diffusers_layout import Component, components
from lightning_mav.checkpoint.ema import Weights
from lightning_mav.checkpoint.io import new_folder, write_atomically
from lightning_mav.checkpoint.model_card import Facts, diffusers_card, model_card, pipeline_card
from lightning_mav.checkpoint.models import load_to_save, save_model
from lightning_mav.checkpoint.resolve import resolve_model, step_of

Paths = Mapping[str, str | Path]


def export_model(path: str | Path, out: str | Path, weights: Weights = "averaged") -> Facts:
    """Write one model as config.json, model.safetensors and README.md.

    Args:
        path: A run folder, a .ckpt file or a model folder.
        out: The folder to make.
        weights: Which of a run's weights.

    Raises:
        CheckpointError: No model there, or one that has no raw weights.
        ConfigError: ``out`` is there already.
        MachineError: It cannot be written.
    """
    with new_folder(out) as folder:
        return _write(path, folder, Path(out).name, weights)


def export_pipeline(paths: Paths, out: str | Path, weights: Weights = "averaged") -> list[Facts]:
    """Write several models, each in a sub-folder that has its name in ``paths``; errors as in ``export_model``.

    A CLIP that is not our own stays where it is.
    """
    own = {name: path for name, path in paths.items() if not str(path).startswith(FOREIGN)}
    with new_folder(out) as folder:
        parts = {name: _write(path, folder / name, name, weights) for name, path in own.items()}
        _write_text(folder / "README.md", pipeline_card(parts, Path(out).name))
    return list(parts.values())


def export_diffusers(paths: Sequence[str | Path], out: str | Path, weights: Weights = "averaged") -> list[Facts]:
    """Write models of Karlo's shape in the layout of diffusers' UnCLIP pipeline.

    Raises:
        CheckpointError: As in ``export_model``, or a model is of another shape.
    """
    parts: list[Facts] = []
    classes: dict[str, str] = {}
    with new_folder(out) as folder:
        for path in paths:
            model = load_to_save(path, weights)
            parts.append(_facts(model, path, weights))
            for component in components(model, path):
                _write_component(component, folder)
                classes[component.folder] = component.config["_class_name"]
        _write_text(folder / "README.md", diffusers_card(parts, classes, Path(out).name))
    return parts


def _write(path: str | Path, folder: Path, name: str, weights: Weights) -> Facts:
    model = load_to_save(path, weights)
    facts = _facts(model, path, weights)
    save_model(model, folder)
    _write_text(folder / "README.md", model_card(facts, name))
    return facts


def _write_component(component: Component, folder: Path) -> None:
    state = {key: value.contiguous() for key, value in component.state.items()}
    file = folder / component.folder / "diffusion_pytorch_model.safetensors"
    write_atomically(file, lambda stream: stream.write(save(state, metadata={"format": "pt"})))
    _write_text(file.with_name("config.json"), json.dumps(component.config, indent=2))


def _write_text(file: Path, text: str) -> None:
    write_atomically(file, lambda stream: stream.write(text.encode()))


def _facts(model: nn.Module, path: str | Path, weights: Weights) -> Facts:
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Facts(str(model.name), num_parameters, to_plain(model.config), _origin(path, weights))


def _origin(path: str | Path, weights: Weights) -> str:
    """Say which weights a path stands for."""
    found = resolve_model(path)
    if found.kind == "model":
        return "of a model folder"
    step = step_of(found.path.resolve())
    return f"{weights}, of a run" if step < 0 else f"{weights}, after {step:,} training steps"
