"""The base of metrics whose states keep their type: ``precision="bf16-true"`` casts a module with all it holds."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class PreciseMetric(Metric):
    """A metric whose float64 states follow a module to another device, never to another type.

    They enter no state dict either, which is torchmetrics' own default.
    """

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> "PreciseMetric":
        kept = {name: getattr(self, name) for name in self._defaults}
        super()._apply(fn, exclude_state=[*kept, *exclude_state])
        for name, state in kept.items():
            setattr(self, name, _moved(state, fn))
        return self


def _moved(state: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Return a state, or a list of them, where ``fn`` puts tensors."""
    if isinstance(state, list):
        return [_moved(one, fn) for one in state]
    return state.to(fn(torch.zeros((), device=state.device)).device)
