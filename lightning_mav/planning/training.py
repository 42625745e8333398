"""A stage's training step, as Lightning runs it, on fake tensors."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_mav.data.batches import Batch
from lightning_mav.diffusion.schedule import make_schedule
from lightning_mav.errors import ConfigError
from lightning_mav.networks.small_clip import CONTEXT
from lightning_mav.planning.examples import example_text
from lightning_mav.planning.meter import Bytes, Meter, metered
from lightning_mav.stages.base import Stage
from lightning_mav.stages.data_module import StageDataModule

Precision = Literal["32-true", "bf16-mixed"]  # what is planned
PRECISIONS: dict[str, Precision] = {
    "None": "32-true",
    "32": "32-true",
    "32-true": "32-true",
    "bf16": "bf16-mixed",
    "bf16-mixed": "bf16-mixed",
}
FARTHEST = 32  # times the batch, where the largest batch is looked for


@dataclass(frozen=True)
class StepPlan:
    """What one training step costs.

    Attributes:
        parameters: Of the model.
        trained: Those of them that change.
        batch_size: Samples of the step.
        flops: Of forward and backward pass, recomputed activations included.
        memory: Bytes by kind at the step's peak.
        update_peak: Bytes at the peak of the optimiser's step, whatever the batch.
        peaks: (samples, bytes at the peak of forward and backward pass), for ascending numbers of samples.
    """

    parameters: int
    trained: int
    batch_size: int
    flops: int
    memory: Bytes
    update_peak: int
    peaks: tuple[tuple[int, int], ...]

    def largest_batch(self, capacity: float) -> int:
        """Return the largest batch whose step fits ``capacity`` bytes; 0 if not even one sample does.

        The peak is a maximum over moments of which each grows linearly with the batch, so that the straight line
        between two batches is never below it.
        """
        fitting = [(low, high) for low, high in pairwise(self.peaks) if low[1] <= capacity]
        if not fitting or self.update_peak > capacity:
            return 0
        (size, peak), (larger, higher) = fitting[-1]
        return int(size + (capacity - peak) * (larger - size) / (higher - peak))


def plan_step(
    stage: Stage, data: StageDataModule, precision: str = "32-true", device: str = "cuda", ranks: int = 1
) -> StepPlan:
    """Count a step of ``stage`` on batches such as ``data`` gives.

    Args:
        stage: Its weights are on the meta device.
        data: Its sizes count, its files do not.
        precision: As the trainer takes it.
        device: "cuda" or "cpu", whose kernels to count.
        ranks: Devices over which the model is sharded; the plan is that of one of them.

    Raises:
        ConfigError: A precision that this cannot count.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision: {precision} is not planned; choose 32-true or bf16-mixed")
    if hasattr(stage.model, "schedule"):  # its tables are constants, which the meta device does not hold
        stage.model.schedule = make_schedule(stage.model.objective.schedule, stage.model.objective.num_timesteps)
    with metered(device) as meter:
        step = _Step(stage.to_empty(device="cpu"), meter, PRECISIONS[precision])
        update = step.update()
        passes = {size: step.passes(data, size) for size in sorted({1, data.batch_size, FARTHEST * data.batch_size})}
    parameters = list(stage.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    if ranks > 1:
        from lightning_mav.planning.sharding import gathered_bytes, on_one_rank  # imports much, for few

        gathered = gathered_bytes(stage.model, PRECISIONS[precision])
        passes = {n: replace(c, peak=on_one_rank(c.peak, ranks, trained, gathered)) for n, c in passes.items()}
        update = replace(update, peak=on_one_rank(update.peak, ranks, trained, 0))
    own = passes[data.batch_size]
    return StepPlan(
        parameters=sum(p.numel() for p in parameters),
        trained=trained,
        batch_size=data.batch_size,
        flops=own.flops,
        memory=max(own.peak, update.peak, key=Bytes.total),
        update_peak=update.peak.total(),
        peaks=tuple((size, count.peak.total()) for size, count in passes.items()),
    )


@dataclass(frozen=True)
class _Count:
    peak: Bytes
    flops: int


class _Step:
    """A stage in the middle of a run: its gradients and moments exist, as after any step but the first."""

    def __init__(self, stage: Stage, meter: Meter, precision: Precision) -> None:
        self.stage, self.meter, self.precision = stage, meter, precision
        self.trained = [p for p in stage.model.parameters() if p.requires_grad]
        configured: Any = stage.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = configured["optimizer"]
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._found)
            parameter.grad = torch.zeros_like(parameter)
            self._found(parameter)
        self.update()
        meter.assign(stage.model.state_dict(keep_vars=True).values(), "weights")
        meter.assign(stage.ema.parameters(), "ema")
        states = self.optimizer.state.values()
        meter.assign((value for state in states for value in state.values()), "optimizer")

    def _found(self, parameter: Tensor) -> None:
        self.meter.assign([parameter.grad], "gradients")

    def passes(self, data: StageDataModule, batch_size: int) -> _Count:
        """Count forward and backward pass; the last step's gradients live until the loss is known."""
        batch = example_batch(self.stage, data, batch_size)
        self.meter.restart()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            loss = mean_loss(self.stage, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return _Count(self.meter.peak, self.meter.flops)

    def update(self) -> _Count:
        """Count the steps of optimiser and averaged weights."""
        self.meter.restart()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.stage.ema.update(self.stage.model)
        return _Count(self.meter.peak, self.meter.flops)


def mean_loss(stage: Stage, batch: Batch) -> Tensor:
    """Return the loss of a batch of ``example_batch``."""
    if stage.model.name == "clip":
        return stage.losses(batch)["loss"].mean()
    clean = stage.clean(batch)
    noise, timestep = torch.empty_like(clean), torch.zeros(len(clean), dtype=torch.int64)
    losses: dict[str, Tensor] = stage.model.loss(batch, noise, timestep)
    return losses["loss"].mean()


def example_batch(stage: Stage, data: Any, batch_size: int) -> Batch:
    """Return a batch without values, of the shapes that ``data`` gives and ``stage`` completes."""
    n, network = batch_size, stage.model.config.network
    if stage.model.name == "clip":
        tokens = torch.zeros(n, CONTEXT, dtype=torch.int64)
        return {"image": torch.empty(n, 3, data.size, data.size), "tokens": tokens}
    if stage.model.name == "prior":
        text = example_text(n, network.embedding_dim, network.states_dim).as_condition()
        return {"image_embedding": torch.empty(n, network.embedding_dim)} | text
    frames, side = getattr(data, "frames", 1), getattr(data, "crop", None) or data.size
    video = {"video": torch.empty(n, 3, frames, side, side)}
    if stage.model.name.startswith("sr_"):
        return video | {"low_res": torch.empty(n, 3, frames, side // data.scale, side // data.scale)}
    conditions = {
        "image_embedding": torch.empty(n, network.image_embedding_dim or 0),
        "dropped": torch.zeros(n, dtype=torch.bool),
        "frame_mask": torch.zeros(n, frames, dtype=torch.bool),
    }
    if network.text_dim:
        conditions |= example_text(n, network.text_dim, network.text_dim).as_condition()
    return video | conditions | ({"fps": torch.empty(n)} if network.fps else {})
