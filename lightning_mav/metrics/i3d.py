"""I3D (Carreira and Zisserman 2017), the network behind FVD, in the key layout of the PyTorch port that VideoGPT uses.

Its 400 Kinetics logits before the softmax, averaged over time, are FVD's features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_LOGITS = 400
LEAST_FRAMES = 9
"""Fewer leave a single time step before the last pooling, which needs two."""

# 1x1; 1x1 then 3x3x3; 1x1 then 3x3x3; 1x1 after pooling
_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
_LAYERS = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *_MIXED)
_POOLS = {
    "Conv3d_1a_7x7": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2c_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3c": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4f": ((2, 2, 2), (2, 2, 2)),
}  # layer -> size and stride of the pooling after it


class I3D(nn.Module):
    """Video to 400 logits; ``load_state_dict`` takes i3d_pretrained_400.pt as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("Conv3d_1a_7x7", _Unit(3, 64, 7, stride=2))
        self.add_module("Conv3d_2b_1x1", _Unit(64, 64, 1))
        self.add_module("Conv3d_2c_3x3", _Unit(64, 192, 3))
        for name, (in_channels, widths) in _MIXED.items():
            self.add_module(name, _Mixed(in_channels, widths))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, NUM_LOGITS, 1)})

    def forward(self, video: Tensor) -> Tensor:
        """Map videos (B, 3, F, 224, 224) in [-1, 1], F >= 9, to logits (B, 400)."""
        x = video
        for name in _LAYERS:
            x = self.get_submodule(name)(x)
            if name in _POOLS:
                size, stride = _POOLS[name]
                x = F.max_pool3d(pad_same(x, size, stride), size, stride)
        x = F.avg_pool3d(x, (2, 7, 7), 1)
        logits: Tensor = self.logits["conv3d"](x)
        return logits.mean((2, 3, 4))


class _Unit(nn.Module):
    """Convolution with TensorFlow's padding, batch normalisation, rectifier."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.size, self.stride = (size,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(in_channels, out_channels, size, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(pad_same(x, self.size, self.stride))))


class _Mixed(nn.Module):
    """An inception module: four branches side by side."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = _Unit(in_channels, widths[0], 1)
        self.b1a, self.b1b = _Unit(in_channels, widths[1], 1), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(in_channels, widths[3], 1), _Unit(widths[3], widths[4], 3)
        self.b3b = _Unit(in_channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool3d(pad_same(x, (3, 3, 3), (1, 1, 1)), 3, 1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def pad_same(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pad (B, C, F, H, W) with zeros as TensorFlow's SAME does: ceil(n / stride) outputs, the odd zero at the end."""
    pads: list[int] = []
    for n, k, s in zip(reversed(x.shape[2:]), reversed(size), reversed(stride), strict=True):
        missing = max(k - (n % s or s), 0)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads) if any(pads) else x
