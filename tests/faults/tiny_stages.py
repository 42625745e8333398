"""Configurations of five stages whose networks have a few thousand weights, and the command that trains one."""

from pathlib import Path
from typing import Any

import yaml

from lightning_mav.checkpoint.models import save_model
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.networks.small_clip import SmallClipConfig

UNET = {"channels": 8, "channel_mult": [1], "num_res_blocks": 1, "norm_groups": 4, "dropout": 0.1}
SEEING = UNET | {"attention_downsamples": [1], "head_channels": 8, "image_embedding_dim": 8, "context_dim": 8}
PLAIN = UNET | {"attention_downsamples": [], "mid_attention": False, "image_embedding_dim": None, "context_dim": None}
FILMING = SEEING | {"fps": True, "temporal": {}}
FIRST = {"config": {"network": FILMING, "image_size": 8, "sampling": {"steps": 2}}}
PRIOR = {"embedding_dim": 8, "states_dim": 8, "width": 16, "num_layers": 1, "num_heads": 2}
STAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "prior": ("Prior", {"network": PRIOR, "sampling": {"steps": 2}}, {"size": 8, "statistics_samples": 16}),
    "decoder": ("Decoder", FIRST["config"], {"size": 8, "frames": 3}),
    "interpolation": ("Interpolation", FIRST["config"], {"size": 8, "frames": 6}),
    "sr_spacetime": (
        "SpacetimeSR",
        {"network": PLAIN | {"temporal": {"attention": False}}, "scale": 4, "sampling": {"steps": 2}},
        {"size": 16, "frames": 3},
    ),
    "sr_spatial": ("SpatialSR", {"network": PLAIN, "scale": 3, "sampling": {"steps": 2}}, {"size": 12}),
}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "callbacks": [{"class_path": "tests.faults.journal.Journal"}],
}


def tiny_clip(folder: Path) -> Path:
    """Write an untrained CLIP of width 8, for the stages that need one."""
    save_model(Clip(ClipConfig(SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1))), folder)
    return folder


def write_config(folder: Path, name: str, clip: Path, images: Path) -> Path:
    """Write the configuration of a stage.

    Args:
        folder: Where to.
        name: One of ``STAGES``.
        clip: Folder of the CLIP.
        images: A few pictures, whose end is reached often; only SR_h reads them, the others see moving shapes.
    """
    kind, model, data = STAGES[name]
    data = {"batch_size": 2, "source": str(images) if name == "sr_spatial" else "moving_shapes", **data}
    config = {
        "model": {
            "class_path": f"lightning_mav.stages.{kind}Stage",
            "init_args": {"config": model, "lr": 1e-2, "warmup_steps": 5, "schedule_steps": 60, "decay_steps": 30},
        },
        "data": {
            "class_path": f"lightning_mav.stages.{kind}DataModule",
            "init_args": data if name.startswith("sr_") else data | {"clip": str(clip)},
        },
        "trainer": TRAINER,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
