"""Optimiser steps whose loss or gradients are not finite: they end the run or are left out, on all ranks alike."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, distributed, nn

from lightning_mav.errors import ConfigError, NumericError

OnNan = Literal["stop", "skip"]
SHOWN = 8  # samples that a message names


class FiniteSteps:
    """Judges each optimiser step by the norm of its gradients, which all ranks share.

    Args:
        on_nan: What becomes of a step that is not finite.
        max_skipped: Steps left out in a row, after which ``skip`` stops as well.

    Attributes:
        skipped: Steps left out in this run so far.
        in_a_row: Those of them since the last step that was taken.
    """

    def __init__(self, on_nan: OnNan, max_skipped: int) -> None:
        if max_skipped < 1:
            raise ConfigError(f"model.max_skipped: expected at least 1 step, got {max_skipped}")
        self.on_nan, self.max_skipped = on_nan, max_skipped
        self.skipped = self.in_a_row = 0
        self._seen: list[tuple[Tensor, Tensor]] = []

    def see(self, index: Tensor, losses: Tensor) -> Tensor:
        """Take note of a batch's losses (B,) and return their mean, whose gradients are NaN if it is not finite."""
        self._seen.append((index, losses.detach()))
        mean = losses.mean()
        return mean * (1 + 0 * mean.detach())

    def judge(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, searching: bool = False) -> None:
        """Look at the gradients before they are used; without any, the optimiser leaves weights and moments alone.

        Args:
            model: Has the gradients, after all ranks' were averaged.
            optimizer: Loses them if they are not finite.
            step: Optimiser steps so far.
            searching: Gradients are scaled by a factor that is found by overflow, so that no single one is an error.

        Raises:
            NumericError: They are not finite, and the run is to stop.
        """
        seen, self._seen = self._seen, []
        if bool(torch.isfinite(gradient_norm(model.parameters()))):
            self.in_a_row = 0
            return
        fault = _fault(seen, step)
        if self.on_nan == "stop" and not searching:
            raise NumericError(f"{fault}; lower model.lr, or leave such steps out with --model.on_nan skip")
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row > self.max_skipped:
            raise NumericError(f"{fault}, after {self.max_skipped} steps left out in a row; lower model.lr")
        optimizer.zero_grad()
        rank_zero_warn(f"{fault}; this step is left out")

    def state(self) -> list[int]:
        """Return what a checkpoint keeps."""
        return [self.skipped, self.in_a_row]

    def load(self, state: list[int]) -> None:
        """Go on from a checkpoint's state."""
        self.skipped, self.in_a_row = state


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients together, a scalar; of sharded ones, that of the whole."""
    norm: Any = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole


def _fault(seen: list[tuple[Tensor, Tensor]], step: int) -> str:
    """Say what is not finite, and for which samples of all ranks."""
    pairs = [(int(i), ok) for index, losses in seen for i, ok in zip(index, losses.isfinite().tolist(), strict=True)]
    pairs = [pair for rank in _of_all_ranks(pairs) for pair in rank]
    bad = [i for i, ok in pairs if not ok]
    indices = ", ".join(map(str, (bad or [i for i, _ in pairs])[:SHOWN]))
    return f"the {'loss' if bad else 'gradient'} is not finite at step {step}, samples {indices}"


def _of_all_ranks(value: Any) -> list[Any]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
