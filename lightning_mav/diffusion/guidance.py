"""Classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Callable

import torch
from torch import Tensor

Condition = dict[str, Tensor]


def classifier_free_guidance(
    call: Callable[[Tensor, Tensor, Condition], Tensor],
    x_t: Tensor,
    timestep: Tensor,
    condition: Condition,
    null: Condition,
    scale: float,
    num_mean_channels: int,
) -> Tensor:
    """Return null + scale (conditional - null), from one network call on a batch of 2B.

    Args:
        call: network, ``(x_t, timestep, condition) -> output``; batch first everywhere.
        x_t: (B, ...).
        timestep: (B,) as the network takes it.
        condition: named tensors (B, ...).
        null: the same names for the dropped condition, each of batch B or 1.
        scale: 1 is the plain conditional output, and then the null half is not computed.
        num_mean_channels: channels that are guided; learned-variance channels after them stay conditional.

    Returns:
        Output of the network for B samples, (B, channels, ...) float32.
    """
    if scale == 1:
        return call(x_t, timestep, condition).float()
    both = {name: torch.cat([value, null[name].expand_as(value)]) for name, value in condition.items()}
    output = call(torch.cat([x_t, x_t]), torch.cat([timestep, timestep]), both).float()
    conditional, unconditional = output.chunk(2)
    mean, base = conditional[:, :num_mean_channels], unconditional[:, :num_mean_channels]
    return torch.cat([base + scale * (mean - base), conditional[:, num_mean_channels:]], dim=1)
