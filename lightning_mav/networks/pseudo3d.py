"""Pseudo-3D layers (section 3.2): a pretrained 2D layer, then a temporal layer that starts as the identity.

All layers take and return tokens (B, F, H, W, C); see layout.py. Parameter names are those of the ADM, GLIDE and Karlo
checkpoints; temporal parameters live in child modules called `temporal`, so that a 2D checkpoint is a strict subset.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_mav.networks.attention import spatial_attention, temporal_attention
from lightning_mav.networks.conditioning import BlockCondition
from lightning_mav.networks.layout import group_norm, pointwise, spatial_conv, temporal_conv


@dataclass(frozen=True)
class TemporalConfig:
    """How frames are mixed.

    Args:
        kernel_size: Frames under the temporal convolution after every 3x3 convolution; odd.
        attention: Temporal attention after every spatial attention.
        max_distance: Relative positions beyond this many frames share one bias.
    """

    kernel_size: int = 3
    attention: bool = True
    max_distance: int = 32


class GroupNorm(nn.GroupNorm):
    """Group normalisation of each frame on its own; statistics over all frames would break the identity."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise tokens (B, F, H, W, C)."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class TemporalConv(nn.Module):
    """Conv_1D of equation (2): a convolution over frames that starts as the identity (Dirac kernel, zero bias)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        weight = nn.init.dirac_(torch.empty(channels, channels, kernel_size)).unsqueeze(-1)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve tokens (B, F, H, W, C) over F."""
        return temporal_conv(x, self.weight, self.bias)


class PseudoConv3d(nn.Conv2d):
    """Equation (2): a 3x3 convolution of each frame, then a convolution over frames.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        temporal: How frames are mixed; None for an image network.
        extra_channels: Further input channels with a zero kernel of their own, so that the 2D weight keeps its shape.
        stride: Of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temporal: TemporalConfig | None,
        extra_channels: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1)
        self.weight.data = self.weight.data.to(memory_format=torch.channels_last)
        self.temporal = TemporalConv(out_channels, temporal.kernel_size) if temporal else None
        self.extra = ZeroConv(extra_channels, out_channels) if extra_channels else None

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Convolve tokens (B, F, H, W, C); ``extra`` (B, F, H, W, extra_channels) enters by its own kernel."""
        y = spatial_conv(x, self.weight, self.bias, self.stride[0])
        if self.extra is not None:
            y = y + self.extra(extra)
        return self.temporal(y) if self.temporal is not None else y


class ZeroConv(nn.Module):
    """A 3x3 convolution without bias whose kernel starts at zero: a new condition that at first changes nothing."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        weight = torch.zeros(out_channels, in_channels, 3, 3)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve tokens (B, F, H, W, C)."""
        return spatial_conv(x, self.weight, None)


class PointwiseConv(nn.Conv1d):
    """A linear map of the channels, kept as Conv1d (weight (C_out, C, 1)) for the key layout."""

    def __init__(self, in_channels: int, out_channels: int, zero: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1)
        if zero:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C_out)."""
        return pointwise(x, self.weight.squeeze(-1), self.bias)


class TemporalAttention(nn.Module):
    """ATTN_1D of equation (3): attention over frames with a relative position bias; its output starts at zero."""

    def __init__(self, channels: int, num_heads: int, num_groups: int, max_distance: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.max_distance = max_distance
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = PointwiseConv(channels, 3 * channels)
        self.pos = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1))
        self.proj_out = PointwiseConv(channels, channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """Let the frames of tokens (B, F, H, W, C) attend to each other, pixel by pixel."""
        b, f, h, w, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(b, f, h * w, -1)
        y: Tensor = self.proj_out(temporal_attention(qkv, self.num_heads, self._position_bias(f)))
        return x + y.view(x.shape)

    def _position_bias(self, num_frames: int) -> Tensor:
        frame = torch.arange(num_frames, device=self.pos.device)
        distance = (frame - frame[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.pos[:, distance + self.max_distance]


class PseudoAttention3d(nn.Module):
    """Equation (3): attention within each frame (context tokens in front), then attention over frames."""

    def __init__(
        self, channels: int, num_heads: int, num_groups: int, context_dim: int | None, temporal: TemporalConfig | None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = PointwiseConv(channels, 3 * channels)
        self.encoder_kv = PointwiseConv(context_dim, 2 * channels) if context_dim else None
        self.proj_out = PointwiseConv(channels, channels, zero=True)
        self.temporal: TemporalAttention | None = None
        if temporal and temporal.attention:
            self.temporal = TemporalAttention(channels, num_heads, num_groups, temporal.max_distance)

    def forward(self, x: Tensor, condition: BlockCondition) -> Tensor:
        """Mix tokens (B, F, H, W, C)."""
        b, f, h, w, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(b, f, h * w, -1)
        context_kv = self.encoder_kv(condition.context) if self.encoder_kv is not None else None
        y = spatial_attention(qkv, self.num_heads, context_kv, condition.context_mask)
        x = x + self.proj_out(y).view(x.shape)
        return self.temporal(x) if self.temporal is not None else x


def is_temporal(key: str) -> bool:
    """Tell whether a parameter is one that a 2D checkpoint lacks: temporal, fps, or extra input channels."""
    return ".temporal." in key or key.startswith("fps_embed.") or ".extra." in key


def is_dirac(key: str) -> bool:
    """Tell whether a parameter is a temporal kernel, which weight decay would pull away from the identity."""
    return key.endswith(".temporal.weight")
