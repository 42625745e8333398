"""A plan against a real step: the bytes that the CPU allocator hands out, and FLOPs by hand."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Objective
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.planning.training import plan_step
from lightning_mav.stages import DecoderDataModule, DecoderStage, PriorDataModule, PriorStage

NETWORK = UNetConfig(
    channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_downsamples=(2,),
    head_channels=16,
    norm_groups=8,
    image_embedding_dim=16,
    context_dim=32,
    fps=True,
    temporal=TemporalConfig(),
)
DATA = {"clip": "", "frames": 4, "size": 32}


def stage_of(checkpointing=False, trainable="all", device="meta", **changes):
    config = DecoderConfig(replace(NETWORK, checkpointing=checkpointing, **changes), Objective(), image_size=32)
    with torch.device(device):
        return DecoderStage(config, trainable=trainable)


def planned(batch_size=4, precision="32-true", device="cpu", **settings):
    return plan_step(stage_of(**settings), DecoderDataModule(**DATA, batch_size=batch_size), precision, device)


def step(stage, optimizer, batch, precision):
    """One step in Lightning's order: gradients of the last one are freed after the forward pass."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = stage.losses(batch)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    stage.ema.update(stage.model)


def measured(batch_size, precision, **settings):
    """The peak of what the CPU allocator has handed out, in bytes, of the second step."""
    stage = stage_of(device="cpu", **settings)
    optimizer = stage.configure_optimizers()["optimizer"]
    numbers = torch.arange(batch_size)
    batch = {
        "video": torch.randn(batch_size, 3, 4, 32, 32),
        "image_embedding": torch.randn(batch_size, 16),
        "fps": torch.full((batch_size,), 8.0),
        "index": numbers,
        "position": numbers,
    }
    step(stage, optimizer, batch, precision)
    parameters = list(stage.parameters())
    kept = [*parameters, *(p.grad for p in parameters if p.grad is not None), *batch.values()]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(stage, optimizer, batch, precision)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(tensor.nbytes for tensor in kept) + max(accumulate(changes))


@pytest.mark.parametrize("trainable", ["all", "temporal"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_planned_peak_is_the_measured_one(precision, checkpointing, trainable):
    settings = {"checkpointing": checkpointing, "trainable": trainable}
    plan = planned(4, precision, **settings)
    real = measured(4, precision, **settings)
    print(precision, checkpointing, trainable, plan.memory, plan.memory.total() / real)
    assert plan.memory.total() == pytest.approx(real, rel=0.1)
