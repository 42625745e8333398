"""The text encoder that GLIDE's networks carry in themselves (Nichol et al. 2021, section 2.1), in its key layout."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_mav.networks.prior_transformer import ResidualBlock


@dataclass(frozen=True)
class TextTransformerConfig:
    """Sizes of a text transformer; the defaults are GLIDE's.

    Attributes:
        width: token width.
        num_layers: residual blocks.
        num_heads: attention heads; divides ``width``.
        num_tokens: longest text.
        vocabulary: number of token ids.
    """

    width: int = 512
    num_layers: int = 16
    num_heads: int = 8
    num_tokens: int = 128
    vocabulary: int = 50257


class TextTransformer(nn.Module):
    """Every token reads every other; padding is a learned vector of each place, so that no mask is needed.

    Args:
        config: Sizes.
        out_dim: Width of the pooled embedding.
    """

    def __init__(self, config: TextTransformerConfig, out_dim: int) -> None:
        super().__init__()
        width = config.width
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.num_tokens, width))
        self.padding_embedding = nn.Parameter(0.01 * torch.randn(config.num_tokens, width))
        blocks = nn.ModuleList(ResidualBlock(width, config.num_heads) for _ in range(config.num_layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.final_ln = nn.LayerNorm(width)
        self.transformer_proj = nn.Linear(width, out_dim)

    def empty(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of the empty text, each (batch, N)."""
        mask = torch.zeros(batch, len(self.padding_embedding), dtype=torch.bool, device=self.padding_embedding.device)
        return mask.long(), mask

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a text.

        Args:
            tokens: (B, N) ids; those of padding do not matter.
            mask: (B, N) bool, True on real tokens.

        Returns:
            The states (B, N, width), and the pooled embedding (B, out_dim), which is read at the last place.
        """
        x = self.token_embedding(tokens) + self.positional_embedding
        x = torch.where(mask[..., None], x, self.padding_embedding)
        for block in self.transformer["resblocks"].children():
            x = block(x)
        states: Tensor = self.final_ln(x)
        return states, self.transformer_proj(states[:, -1])
