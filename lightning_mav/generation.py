"""From the options of a command to a pipeline whose every part is there and fits, found out before any work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.models import config_of, read_description, read_model
from lightning_mav.checkpoint.resolve import resolve_model
from lightning_mav.diffusion.schedule import spaced_timesteps
from lightning_mav.errors import CheckpointError, ConfigError, MachineError
from lightning_mav.models.base import Sampling
from lightning_mav.models.interpolation import plan_windows
from lightning_mav.pipeline import PARTS, MakeAVideo, Part
from lightning_mav.precision import Precision

Device = Literal["auto", "cpu", "cuda"]
UNGUIDED = ("sr_spacetime", "sr_spatial")


def open_pipeline(
    folder: str, replaced: Mapping[str, str | None], device: Device, precision: Precision, batch_size: int = 8
) -> MakeAVideo:
    """Find the models of a pipeline folder and the device to run them on.

    Args:
        folder: The pipeline folder.
        replaced: Where single parts lie instead; None leaves a part as it is.
        device: ``auto`` takes a GPU if there is one.
        precision: Of convolutions and matrix products.
        batch_size: Most videos that go through a part at once.

    Raises:
        CheckpointError: No pipeline there.
        MachineError: No GPU, but one was asked for.
    """
    if resolve_model(folder).kind != "pipeline":
        raise CheckpointError(f"{folder}: is one model; --model wants the folder of prior, decoder and the rest")
    chosen = chosen_device(device)
    parts = {name: path for name, path in replaced.items() if path}
    return MakeAVideo.from_pretrained(folder, parts, device=chosen, precision=precision, batch_size=batch_size)


def chosen_device(device: Device) -> Literal["cpu", "cuda"]:
    """Return the device that a command's option means.

    Raises:
        MachineError: No GPU, but one was asked for.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MachineError("device: torch sees no GPU; take --device cpu, or see python -m lightning_mav doctor")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def configs_of(pipeline: MakeAVideo, parts: Sequence[Part], with_weights: bool = True) -> dict[str, Any]:
    """Return the configurations of ``parts``, each read from its file.

    Args:
        pipeline: Where the parts lie.
        parts: Their names.
        with_weights: Find out whether the weights are whole, too.

    Raises:
        CheckpointError: A part is missing, damaged, another model, or made for another CLIP.
        ConfigError: A part cannot take frames of the size that it would get.
    """
    configs: dict[str, Any] = {}
    for part in parts:
        if part not in pipeline.paths:
            raise CheckpointError(f"no {part} among the models; train it, or name its folder with --{part}")
        path = pipeline.paths[part]
        description = read_model(path, part)[0] if with_weights else read_description(path, part)
        configs[part] = config_of(description, path)
    _check_widths(pipeline, configs)
    _check_sizes(pipeline, configs)
    return configs


def _check_widths(pipeline: MakeAVideo, configs: Mapping[str, Any]) -> None:
    """Require that all parts speak of embeddings of the same width."""
    names = {"prior": "embedding_dim", "decoder": "image_embedding_dim", "interpolation": "image_embedding_dim"}
    widths = {part: getattr(c.network, names[part]) for part, c in configs.items() if part in names}
    first = next(iter(widths), None)
    for part, width in widths.items():
        if first and width != widths[first]:
            raise CheckpointError(
                f"{pipeline.paths[part]}: takes image embeddings of width {width}, but the {first} works with "
                f"{widths[first]}; take models that were trained with one CLIP"
            )


def _check_sizes(pipeline: MakeAVideo, configs: Mapping[str, Any]) -> None:
    """Require that every part can take the frames of the one before it."""
    size = next((config.image_size for config in configs.values() if hasattr(config, "image_size")), 0)
    given = f"{size}x{size} pixels"
    for part, config in configs.items():
        if part != "prior":
            size *= getattr(config, "scale", 1)
            multiple = config.network.downsampling * config.unshuffle
            if size % multiple:
                raise ConfigError(
                    f"{pipeline.paths[part]}: cannot make frames of {size}x{size} from {given}, only multiples of "
                    f"{multiple}; take another {part}"
                )
            given = f"the {size}x{size} of {pipeline.paths[part]}"


def check_positive(**values: float | None) -> None:
    """Require that numbers, named as the options they come from, are at least 1.

    Raises:
        ConfigError: One is not.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")


def check_frames(frames: int, frame_skip: int, parts: Sequence[Part]) -> None:
    """Require a number of frames that ``parts`` can take.

    Raises:
        ConfigError: They cannot.
    """
    if "interpolation" in parts:
        plan_windows(frames, frame_skip)


def sampling_of(configs: Mapping[str, Any], **changes: Any) -> dict[str, Sampling]:
    """Return how each part samples: its own settings with ``changes``.

    Args:
        configs: The parts' configurations.
        changes: A new value of a field of ``Sampling`` for all parts that know it, or a dictionary of values by part;
            None changes nothing.

    Raises:
        ConfigError: An unknown part, or steps that its schedule does not have.
    """
    sampling: dict[str, Sampling] = {part: config.sampling for part, config in configs.items()}
    for name, value in changes.items():
        for part, new in _by_part(name, value).items():
            if part in sampling:
                sampling[part] = replace(sampling[part], **{name: new})
                if isinstance(sampling[part].steps, str):  # such a spacing is not shifted
                    sampling[part] = replace(sampling[part], shift=1.0)
    for part, one in sampling.items():
        spaced_timesteps(configs[part].objective.num_timesteps, one.steps, one.shift)
    return sampling


def _by_part(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        parts = [part for part in PARTS if name != "guidance_scale" or part not in UNGUIDED]
        return {} if value is None else dict.fromkeys(parts, value)
    if unknown := set(value) - set(PARTS):
        raise ConfigError(f"{name}: no part is called '{sorted(unknown)[0]}'; expected one of {', '.join(PARTS)}")
    return value


def resolved(pipeline: MakeAVideo, names: Sequence[str]) -> dict[str, str]:
    """Return the options that make ``pipeline`` again from the same files, though a run may go on meanwhile."""
    paths = {name: str(pipeline.paths[name]) for name in names if name in pipeline.paths}
    files = {name: str(resolve_model(path).path) if Path(path).exists() else path for name, path in paths.items()}
    return files | {"device": str(pipeline.device), "precision": pipeline.precision}


class Progress:
    """One progress bar per part, each replacing the one before; a context.

    Args:
        about: What stands before the part's name.
    """

    def __init__(self, about: str = "") -> None:
        self.about, self.part = about, ""
        self.bar: Any = None

    def __call__(self, part: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``part`` are done."""
        if part != self.part:
            self.close()
            self.part, self.bar = part, tqdm(total=total, desc=f"{self.about}{part}", unit="step")
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """End the bar at work."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
