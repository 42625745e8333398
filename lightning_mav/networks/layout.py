"""The memory layout of every activation: tokens (B, F, H, W, C), contiguous from the first convolution to the last.

One buffer serves all operations as views of other strides: images (B*F, C, H, W) and frame columns (B, C, F, H*W) in
channels-last order, and a plain matrix for linear layers. `.view` (never `.reshape`) raises where a copy would hide.

B batch, C channels, F frames, H height, W width, N tokens of a frame, G norm groups.
"""

import torch
import torch.nn.functional as fn
from torch import Tensor


def to_tokens(video: Tensor) -> Tensor:
    """Turn (B, C, F, H, W) into contiguous tokens (B, F, H, W, C); one of the two copies, at the network's edge."""
    return video.permute(0, 2, 3, 4, 1).contiguous()


def from_tokens(x: Tensor) -> Tensor:
    """Turn tokens (B, F, H, W, C) into a contiguous video (B, C, F, H, W); the other copy at the edge."""
    return x.permute(0, 4, 1, 2, 3).contiguous()


def as_images(x: Tensor) -> Tensor:
    """View tokens (B, F, H, W, C) as channels-last images (B*F, C, H, W)."""
    return x.view(-1, *x.shape[2:]).permute(0, 3, 1, 2)


def as_tokens(images: Tensor, num_frames: int) -> Tensor:
    """View channels-last images (B*F, C, H, W) as tokens (B, F, H, W, C)."""
    y = images.permute(0, 2, 3, 1)
    return y.view(-1, num_frames, *y.shape[1:])


def spatial_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Convolve every frame of tokens (B, F, H, W, C) with a 3x3 kernel, padding 1."""
    return as_tokens(fn.conv2d(as_images(x), weight, bias, stride, padding=1), x.shape[1])


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve every pixel of tokens (B, F, H, W, C) over frames; weight (C_out, C, K, 1), K odd, zero padding."""
    b, f, h, w, c = x.shape
    columns = x.view(b, f, h * w, c).permute(0, 3, 1, 2)
    y = fn.conv2d(columns, weight, bias, padding=(weight.shape[2] // 2, 0))
    return y.permute(0, 2, 3, 1).view(b, f, h, w, -1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map the channels of (..., C) to (..., C_out); weight (C_out, C)."""
    if x.is_cuda or x.dtype != torch.float32:
        return fn.linear(x, weight, bias)
    # oneDNN's convolution takes half the time of MKL's float32 product on AMD's CPUs
    column = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    y = fn.conv2d(column, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).view(*x.shape[:-1], -1)


def upsample(x: Tensor) -> Tensor:
    """Double height and width by nearest neighbour."""
    return as_tokens(fn.interpolate(as_images(x), scale_factor=2.0, mode="nearest"), x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """Halve height and width by 2x2 averages."""
    return as_tokens(fn.avg_pool2d(as_images(x), 2), x.shape[1])


def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each frame of tokens (B, F, H, W, C) in groups of channels; statistics in float32."""
    if x.is_cuda:  # CUDA's kernel would copy to NCHW and back
        return _strided_group_norm(x, num_groups, weight, bias, eps)
    images = as_images(x)
    if x.dtype == torch.bfloat16 and x.shape[-1] // num_groups % 16:  # what the kernel would do channel by channel
        images, weight, bias = images.float(), weight.float(), bias.float()
    return as_tokens(fn.group_norm(images, num_groups, weight, bias, eps), x.shape[1]).to(x.dtype)


def _strided_group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    b, f, h, w, c = x.shape
    groups = x.view(b * f, h * w, num_groups, c // num_groups)
    variance, mean = torch.var_mean(groups.float(), dim=(1, 3), correction=0)
    rstd = (variance + eps).rsqrt()
    scale = rstd[..., None] * weight.float().view(num_groups, -1)
    shift = bias.float().view(num_groups, -1) - mean[..., None] * scale
    y = torch.addcmul(shift.unsqueeze(1), groups.float(), scale.unsqueeze(1))
    return y.to(x.dtype).view(x.shape)
