"""A CLIP small enough to train in seconds: a convolutional image tower beside a tiny causal text transformer.

Shapes: B batch, N tokens, W text width, D embedding width.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mav.networks.prior_transformer import CausalTransformer

VOCABULARY = 49408  # of CLIP's byte-pair encoding
CONTEXT = 77


@dataclass(frozen=True)
class SmallClipConfig:
    """Sizes of the two towers.

    Attributes:
        embedding_dim: width of the joint embedding.
        image_size: pixels; images of any size are resized to it.
        image_channels: channels per level, each level halving the resolution; multiples of 8.
        text_width: token width of the text tower, and of the per-token states it returns.
        text_layers: residual blocks of the text tower.
        text_heads: attention heads of the text tower.
    """

    embedding_dim: int = 64
    image_size: int = 32
    image_channels: tuple[int, ...] = (24, 48, 96)
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 4


class ImageTower(nn.Module):
    """Strided convolutions, then mean and maximum over all places: sees what is there, hardly where."""

    def __init__(self, config: SmallClipConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        channels = (3, *config.image_channels)
        strided = [_convolution(*pair, stride=2) for pair in pairwise(channels)]
        self.levels = nn.Sequential(*strided, _convolution(channels[-1], channels[-1], stride=1))
        self.projection = nn.Linear(2 * channels[-1], config.embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) in [-1, 1] as (B, D)."""
        features = self.levels(resize(images, self.image_size).contiguous(memory_format=torch.channels_last))
        embedding: Tensor = self.projection(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))
        return embedding


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(8, out_channels), nn.SiLU())


class TextTower(nn.Module):
    """A causal transformer whose output at the end-of-text token becomes the embedding."""

    def __init__(self, config: SmallClipConfig) -> None:
        super().__init__()
        width = config.text_width
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(CONTEXT, width))
        self.transformer = CausalTransformer(width, config.text_layers, config.text_heads)
        self.ln_final = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.embedding_dim, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode byte-pair ids (B, 77): the embedding (B, D), and the states (B, 77, W), zero at padding."""
        valid = text_mask(tokens)
        length = int(valid.sum(1).max())  # nothing reads the padding, so the work stops at the longest text
        x = self.token_embedding(tokens[:, :length]) + self.positional_embedding[:length]
        states = self.ln_final(self.transformer(x, valid[:, :length])) * valid[:, :length, None]
        end = valid.sum(1) - 1
        embedding = self.projection(states[torch.arange(len(end), device=end.device), end])
        return embedding, F.pad(states, (0, 0, 0, CONTEXT - length))


class SmallClip(nn.Module):
    """Image tower, text tower and the learned temperature of the contrastive loss."""

    def __init__(self, config: SmallClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config)
        self.logit_scale = nn.Parameter(torch.tensor(10.0).log())


def text_mask(tokens: Tensor) -> Tensor:
    """Return (B, 77) bool: True up to and including the end-of-text token, the one with the largest id."""
    return torch.arange(tokens.shape[1], device=tokens.device) <= tokens.argmax(dim=1, keepdim=True)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (B, C, H, W) in [-1, 1] to ``size`` x ``size`` pixels, bicubic and antialiased, as CLIPs do."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
