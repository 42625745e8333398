"""Loading a frozen CLIP from what a config calls ``clip``: our own, or open_clip or transformers weights on disk."""

import json
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from lightning_mav.checkpoint.models import load_model
from lightning_mav.errors import CheckpointError, ConfigError
from lightning_mav.networks.encoders import (
    ClipEncoder,
    OpenClipEncoder,
    Preprocessing,
    SmallClipEncoder,
    TransformersEncoder,
)
from lightning_mav.networks.small_clip import CONTEXT, VOCABULARY

FOREIGN = ("open_clip:", "transformers:")  # what the name of a CLIP that is not our own begins with
QUICK_GELU_MARKS = ("openai", "quickgelu")  # in the names of weights that were trained with it


def load_clip(spec: str) -> ClipEncoder:
    """Load a frozen CLIP; nothing is ever downloaded or left at random weights.

    Args:
        spec: ``open_clip:MODEL:WEIGHTS_FILE``, ``transformers:FOLDER``, or where a small CLIP of our own lies: a run
            folder, a checkpoint or a model folder.

    Raises:
        ConfigError: The spec cannot be read, or names a model that open_clip does not have.
        CheckpointError: The weights are missing, damaged, or of another model.
    """
    kind, _, rest = spec.partition(":")
    if kind == "open_clip":
        return OpenClipEncoder(_open_clip(rest))
    if kind == "transformers":
        return _transformers(Path(rest))
    model: Any = load_model(spec, "clip")
    return SmallClipEncoder(model.network)


def _open_clip(name_and_file: str) -> nn.Module:
    name, _, file = name_and_file.partition(":")
    config = open_clip.get_model_config(name)
    if config is None or not file:
        raise ConfigError(f"clip: open_clip:{name_and_file}: give open_clip:MODEL:WEIGHTS_FILE, a MODEL open_clip has")
    if "hf_model_name" in config["text_cfg"] or config["text_cfg"].get("vocab_size", VOCABULARY) != VOCABULARY:
        raise ConfigError(f"clip: {name} does not use CLIP's own tokenizer; choose a model that does, such as ViT-L-14")
    if not Path(file).is_file():
        raise CheckpointError(f"{file}: no such weights for clip {name}; download them and give their path")
    _check_quick_gelu(name, file, bool(config.get("quick_gelu")))
    try:
        model: nn.Module = open_clip.create_model(name, pretrained=file, pretrained_image=False, pretrained_text=False)
        return model
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{file}: not weights of clip {name}: {first}; safetensors of that model work") from error


def _check_quick_gelu(name: str, file: str, quick_gelu: bool) -> None:
    """Refuse weights whose name says QuickGELU for a model without it: shapes match, but every output is wrong."""
    if not quick_gelu and any(mark in file.lower() for mark in QUICK_GELU_MARKS):
        raise CheckpointError(
            f"{file}: QuickGELU mismatch, these weights were trained with QuickGELU and {name} has none; "
            f"use open_clip:{name}-quickgelu:{file}"
        )


def _transformers(folder: Path) -> ClipEncoder:
    from transformers import CLIPModel  # slow to import, and few runs need it

    loader: Any = CLIPModel
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: needs config.json and model.safetensors of a transformers CLIP; download them"
        )
    try:
        model, report = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: not a readable transformers CLIP: {str(error).splitlines()[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"{folder}: holds no weight {missing[0]} ({len(missing)} missing); download it again")
    text = model.config.text_config
    if (text.vocab_size, text.max_position_embeddings) != (VOCABULARY, CONTEXT):
        raise CheckpointError(f"{folder}: does not use CLIP's own tokenizer; choose a model that does")
    return TransformersEncoder(model, _preprocessing(folder, model.config.vision_config.image_size))


def _preprocessing(folder: Path, size: int) -> Preprocessing:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return Preprocessing(size)
    config = json.loads(file.read_text())
    return Preprocessing(size, tuple(config["image_mean"]), tuple(config["image_std"]))
