"""Loading a frozen CLIP from what a config calls ``clip``: our own, or open_clip or transformers weights on disk."""

import json
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from lightning_mav.checkpoint.models import load_model
from lightning_mav.checkpoint.openai_clip import check_published, is_torchscript
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
        CheckpointError: The weights are missing, damaged, of another model, or trained with another activation.
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
    _check_quick_gelu(name, Path(file), bool(config.get("quick_gelu")))
    runs_code = is_torchscript(Path(file))
    if runs_code:
        check_published(name, Path(file))
    try:
        model: nn.Module = open_clip.create_model(
            name, file, pretrained_image=False, pretrained_text=False, weights_only=not runs_code
        )
        return model
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{file}: not weights of clip {name}: {first}; safetensors of that model work") from error


def _check_quick_gelu(name: str, file: Path, quick_gelu: bool) -> None:
    """Refuse weights that were trained with the other activation: shapes match, but every output is wrong."""
    plain = name.removesuffix("-quickgelu")
    trained_with = _trained_with_quick_gelu(file, _published(plain))
    if trained_with is None or trained_with == quick_gelu:
        return
    had, has, right = ("with", "none", f"{name}-quickgelu") if trained_with else ("without", "it", plain)
    raise CheckpointError(
        f"{file}: QuickGELU mismatch, these weights were trained {had} QuickGELU and {name} has {has}; "
        f"use open_clip:{right}:{file}"
    )


def _published(name: str) -> dict[str, bool]:
    """Map the tags of a model's published weights to whether those were trained with QuickGELU."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    return {tag: bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")) for tag in tags}


def _trained_with_quick_gelu(file: Path, published: dict[str, bool]) -> bool | None:
    """Tell how weights were trained: by format, by open_clip's config beside them, or by the longest mark in the name.

    Args:
        file: Weights, or a file beside them.
        published: Tags of published weights, as names contain them, and whether those were trained with QuickGELU.

    Returns:
        None if nothing is known.
    """
    if is_torchscript(file):
        return True
    config = file.with_name("open_clip_config.json")
    if config.is_file():
        return bool(_read_json(config).get("model_cfg", {}).get("quick_gelu"))
    marks = dict.fromkeys(QUICK_GELU_MARKS, True) | published
    for text in (file.name, str(file)):
        text = text.lower().replace("-", "_").replace(".", "_")  # as open_clip writes its tags
        if found := [mark for mark in marks if mark in text]:
            return marks[max(found, key=len)]
    return None


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
    _check_hidden_act(folder / "config.json", {text.hidden_act, model.config.vision_config.hidden_act})
    return TransformersEncoder(model, _preprocessing(folder, model.config.vision_config.image_size))


def _check_hidden_act(file: Path, found: set[str]) -> None:
    """Refuse a config whose activation is not the one that its weights were trained with."""
    trained_with = _trained_with_quick_gelu(file, {})
    right = "quick_gelu" if trained_with else "gelu"
    if trained_with is not None and found != {right}:
        raise CheckpointError(
            f"{file}: hidden_act is {' and '.join(sorted(found))}, but these weights were trained with {right}; "
            "set it so in text_config and vision_config"
        )


def _preprocessing(folder: Path, size: int) -> Preprocessing:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return Preprocessing(size)
    config = _read_json(file)
    return Preprocessing(size, tuple(config["image_mean"]), tuple(config["image_std"]))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON; fetch it again") from error
    return content
