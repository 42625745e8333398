"""Five stages whose networks have a few thousand weights, and the commands that train them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lightning_mav.checkpoint.models import save_model
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.networks.small_clip import SmallClipConfig

UNET = {"channels": 8, "channel_mult": [1], "num_res_blocks": 1, "norm_groups": 4, "dropout": 0.1}
SEEING = UNET | {"attention_downsamples": [1], "head_channels": 8, "image_embedding_dim": 8, "context_dim": 8}
PLAIN = UNET | {"attention_downsamples": [], "mid_attention": False, "image_embedding_dim": None, "context_dim": None}
FILMING = {"network": SEEING | {"fps": True, "temporal": {}}, "image_size": 8}
TRANSFORMER = {"embedding_dim": 8, "states_dim": 8, "width": 16, "num_layers": 1, "num_heads": 2}
STAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "prior": ("Prior", {"network": TRANSFORMER}, {"size": 8, "statistics_samples": 16}),
    "decoder": ("Decoder", FILMING, {"size": 8, "frames": 3}),
    "interpolation": ("Interpolation", FILMING, {"size": 8, "frames": 6}),
    "sr_spacetime": (
        "SpacetimeSR",
        {"network": PLAIN | {"temporal": {"attention": False}}, "scale": 4},
        {"size": 16, "frames": 3},
    ),
    "sr_spatial": ("SpatialSR", {"network": PLAIN, "scale": 3}, {"size": 12}),
}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "callbacks": [{"class_path": "journal.Journal"}],
}


def commands(folder: Path, images: Path) -> Callable[..., list[str]]:
    """Return a function that gives the words of a ``fit``: of a stage, in a run folder, with further options.

    Args:
        folder: Receives the configurations and an untrained CLIP of width 8.
        images: A few pictures, so that an epoch ends often; SR_h reads them, the others see moving shapes.
    """
    towers = SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1)
    save_model(Clip(ClipConfig(towers)), folder / "clip")
    for name in STAGES:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config(name, folder / "clip", images)))

    def words(stage: str, run: Path, *options: object) -> list[str]:
        return ["fit", "--config", str(folder / f"{stage}.yaml"), "--run", str(run), *map(str, options)]

    return words


def saving_each_step(folder: Path, images: Path) -> Callable[[Path, int], list[str]]:
    """Return a function that gives the command of SR_h in a run folder, of some steps, which saves after each."""
    of_stage = commands(folder, images)
    options = ["--checkpoint_every", 1, "--trainer.callbacks", "null", "--trainer.max_steps"]
    return lambda run, steps: of_stage("sr_spatial", run, *options, steps)


def config(name: str, clip: Path, images: Path) -> dict[str, Any]:
    """Return the configuration of a stage."""
    kind, model, data = STAGES[name]
    schedule = {"lr": 1e-2, "warmup_steps": 5, "schedule_steps": 60, "decay_steps": 30}
    data = data | ({} if name.startswith("sr_") else {"clip": str(clip)})
    data = data | {"batch_size": 2, "source": str(images) if name == "sr_spatial" else "moving_shapes"}
    return {
        "model": {
            "class_path": f"lightning_mav.stages.{kind}Stage",
            "init_args": {"config": model | {"sampling": {"steps": 2}}, **schedule},
        },
        "data": {"class_path": f"lightning_mav.stages.{kind}DataModule", "init_args": data},
        "trainer": TRAINER,
    }
