"""What a U-Net is told beside its noisy input: timestep, frame rate, image embedding, text (unCLIP, section 2.1).

B batch, M context tokens, D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class BlockCondition:
    """What every block of a U-Net receives.

    Args:
        embedding: (B, 4*channels), the sum of all embeddings that are added to the timestep's.
        context: (B, M, context_dim), image tokens then text tokens, or None.
        context_mask: (B, M), True where a context token counts, or None for all.
    """

    embedding: Tensor
    context: Tensor | None = None
    context_mask: Tensor | None = None


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """Embed positions (B,) as (B, dim): cosines first, wavelengths 2 pi to 2 pi * 10000, float32."""
    half = dim // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = position.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def embedding_mlp(in_dim: int, out_dim: int, zero: bool = False) -> nn.Sequential:
    """Return Linear, SiLU, Linear; ``zero`` starts the last layer at zero."""
    last = nn.Linear(out_dim, out_dim)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.SiLU(), last)
