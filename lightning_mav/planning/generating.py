"""What a cascade costs to make a video: its parts one after the other, on fake tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.schedule import make_schedule, spaced_timesteps
from lightning_mav.models import MODELS
from lightning_mav.models.base import Sampling
from lightning_mav.planning.examples import example_text, example_text_pair
from lightning_mav.planning.meter import Bytes, metered

TRACED_STEPS = 2  # all steps cost the same; a sampler may keep the result of one while it computes the next


@dataclass(frozen=True)
class PartPlan:
    """What one part of the cascade costs.

    Attributes:
        parameters: Of the model.
        steps: Sampling steps.
        flops: Of all steps, for all videos.
        memory: Bytes by kind at the peak.
    """

    parameters: int
    steps: int
    flops: int
    memory: Bytes


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        batch_size: Videos at once.
        frames: Of the decoder's video.
        frame_skip: Frames from one of those to the next after interpolation.
        bf16: Convolutions and matrix products in bfloat16.
        device: "cuda" or "cpu", whose kernels to count.
    """

    batch_size: int = 1
    frames: int = 16
    frame_skip: int = 5
    bf16: bool = True
    device: str = "cuda"


def plan_cascade(configs: Mapping[str, Any], request: Request) -> dict[str, PartPlan]:
    """Count every part of a cascade.

    Args:
        configs: The parts' configurations, in the order in which they work.
        request: What is to be made.
    """
    plans, frames, size = {}, request.frames, 0
    for part, config in configs.items():
        if part == "interpolation":
            frames = (frames - 1) * request.frame_skip + 1
        given = request.frames if part == "interpolation" else frames
        plans[part] = _plan_part(part, config, request, (request.batch_size, 3, given, size, size))
        size = getattr(config, "image_size", size) * getattr(config, "scale", 1)
    return plans


def _plan_part(part: str, config: Any, request: Request, given: tuple[int, ...]) -> PartPlan:
    """Count one part, which is given a video of shape ``given`` by the one before."""
    objective = config.objective
    with torch.device("meta"):
        model: Any = MODELS[part](config)
    model.schedule = make_schedule(objective.schedule, objective.num_timesteps)
    steps = len(spaced_timesteps(objective.num_timesteps, config.sampling.steps, config.sampling.shift))
    traced = min(TRACED_STEPS, steps)
    sampling = replace(config.sampling, steps=traced, shift=1.0)
    with metered(request.device) as meter, torch.no_grad():
        model.to_empty(device="cpu").eval()
        meter.assign(model.state_dict(keep_vars=True).values(), "weights")
        with torch.autocast("cpu", torch.bfloat16, enabled=request.bf16):
            _RUN[part](model, given, request, sampling)
    return PartPlan(_size(model), steps, meter.flops * steps // traced, meter.peak)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _noise(batch_size: int) -> NoiseStream:
    return NoiseStream([torch.Generator() for _ in range(batch_size)])


def _embedding(model: Any, batch_size: int) -> Tensor:
    return torch.empty(batch_size, model.config.network.image_embedding_dim or 0)


def _embed(model: Any, given: tuple[int, ...], request: Request, sampling: Sampling) -> None:
    widths = model.config.network.embedding_dim, model.config.network.states_dim
    model.sample(example_text(given[0], *widths), example_text(1, *widths), _noise(given[0]), sampling)


def _decode(model: Any, given: tuple[int, ...], request: Request, sampling: Sampling) -> None:
    rate = torch.empty(given[0]) if model.makes_videos else None
    text = example_text_pair(given[0], model.config.network.text_dim)
    model.sample(_embedding(model, given[0]), _noise(given[0]), rate, given[2], sampling, text=text)


def _interpolate(model: Any, given: tuple[int, ...], request: Request, sampling: Sampling) -> None:
    noise = [_noise(given[0]) for _ in range(given[2])]
    rate, text = torch.empty(given[0]), example_text_pair(given[0], model.config.network.text_dim)
    embedding = _embedding(model, given[0])
    model.interpolate(torch.empty(given), request.frame_skip, embedding, rate, noise, sampling=sampling, text=text)


def _enlarge(model: Any, given: tuple[int, ...], request: Request, sampling: Sampling) -> None:
    model.sample(torch.empty(given), _noise(given[0]), sampling)


_RUN: dict[str, Callable[[Any, tuple[int, ...], Request, Sampling], None]] = {
    "prior": _embed,
    "decoder": _decode,
    "interpolation": _interpolate,
    "sr_spacetime": _enlarge,
    "sr_spatial": _enlarge,
}
