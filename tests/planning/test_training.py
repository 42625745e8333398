"""A plan against a real step: the bytes that the CPU allocator hands out, and FLOPs by hand."""

from dataclasses import replace
from functools import cache
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
    channel_mult=(1,),
    num_res_blocks=1,
    attention_downsamples=(1,),
    head_channels=16,
    norm_groups=8,
    image_embedding_dim=16,
    context_dim=32,
    fps=True,
    temporal=TemporalConfig(),
)
SIZE = 16
DATA = {"clip": "", "frames": 4, "size": SIZE}


def stage_of(checkpointing=False, trainable="all", device="meta", **changes):
    config = DecoderConfig(replace(NETWORK, checkpointing=checkpointing, **changes), Objective(), image_size=SIZE)
    with torch.device(device):
        return DecoderStage(config, trainable=trainable)


@cache
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
        "video": torch.randn(batch_size, 3, 4, SIZE, SIZE),
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


@pytest.mark.parametrize(
    ("precision", "checkpointing", "trainable"),
    [
        ("32-true", False, "all"),
        ("32-true", True, "temporal"),
        ("bf16-mixed", False, "temporal"),
        ("bf16-mixed", True, "all"),
    ],
)
def test_the_planned_peak_is_the_measured_one(precision, checkpointing, trainable):
    settings = {"checkpointing": checkpointing, "trainable": trainable}
    plan = planned(4, precision, **settings)
    assert plan.memory.total() == pytest.approx(measured(4, precision, **settings), rel=0.1)
    assert plan.memory["activations"] > 0.5 * plan.memory.total()  # they are what is hard to predict


def test_gradients_moments_and_averages_exist_for_trained_parameters_only():
    plans = {trainable: planned(trainable=trainable) for trainable in ("all", "temporal")}
    for trainable, plan in plans.items():
        trained = sum(p.numel() for p in stage_of(trainable=trainable).model.parameters() if p.requires_grad)
        assert plan.trained == trained
        assert 0 < plan.memory["gradients"] <= plan.memory["ema"] == 4 * trained  # at the peak they may still grow
        assert plan.memory["optimizer"] == pytest.approx(8 * trained, rel=1e-3)  # and a step number each
        assert plan.memory["weights"] == 4 * plan.parameters
    assert plans["temporal"].trained < plans["all"].trained == plans["all"].parameters


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_and_flops_grow_with_the_batch(device):
    two, eight = planned(2, device=device), planned(8, device=device)
    peaks = dict(two.peaks) | dict(eight.peaks)
    slope = (peaks[256] - peaks[8]) / 248
    assert peaks[8] + 56 * slope == pytest.approx(peaks[64], rel=0.01)
    for size in (2, 8):  # a line from 1 to 64 samples, on which a largest batch is looked for, promises too little
        assert peaks[size] <= peaks[1] + (size - 1) * (peaks[64] - peaks[1]) / 63
    assert 4 * two.flops == pytest.approx(eight.flops, rel=0.01)
    assert two.update_peak == eight.update_peak


def test_the_largest_batch_fits_and_one_more_does_not():
    two, eight = planned(2), planned(8)
    needed = dict(eight.peaks)[8]
    assert two.largest_batch(1.01 * needed) == 8
    assert two.largest_batch(0.99 * needed) == 7
    assert two.largest_batch(two.update_peak - 1) == two.largest_batch(two.peaks[0][1] - 1) == 0


def test_checkpointing_computes_more_and_keeps_less():
    plain, checkpointed = planned(), planned(checkpointing=True)
    assert checkpointed.memory["activations"] < 0.6 * plain.memory["activations"]
    assert plain.flops < checkpointed.flops < 1.5 * plain.flops


def test_the_flops_of_a_transformer_are_six_per_weight_and_token():
    """Two in the forward pass, four in the backward pass; attention itself is small at this length."""
    network = PriorTransformerConfig(embedding_dim=32, states_dim=32, width=256, num_layers=4, num_heads=4)
    with torch.device("meta"):
        stage = PriorStage(PriorConfig(network))
    plan = plan_step(stage, PriorDataModule("", size=16, batch_size=3))
    weights = sum(p.numel() for p in stage.model.network.transformer.parameters() if p.ndim == 2)
    assert plan.flops == pytest.approx(6 * weights * 3 * (77 + 4), rel=0.1)


def test_a_precision_that_is_not_counted_is_refused():
    with pytest.raises(ConfigError, match=r"trainer.precision: 16-mixed is not planned; choose"):
        planned(precision="16-mixed")
