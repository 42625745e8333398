"""The causal transformer of the prior (unCLIP, Ramesh et al. 2022, section 2.2), in the key layout of Karlo's weights.

Shapes: B batch, N tokens, W token width, H heads, D embedding width, S width of the text encoder's states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mav.networks.attention import attend
from lightning_mav.networks.conditioning import embedding_mlp, sinusoid

NUM_EXTRA_TOKENS = 4  # text embedding, timestep, noised image embedding, learned query


@dataclass(frozen=True)
class PriorTransformerConfig:
    """Sizes of the prior's transformer; the defaults are Karlo's.

    Attributes:
        embedding_dim: width of CLIP's joint image and text embedding.
        states_dim: width of the text encoder's per-token states.
        width: token width.
        num_layers: residual blocks.
        num_heads: attention heads; divides ``width``.
        num_text_tokens: longest text, CLIP's 77.
    """

    embedding_dim: int = 768
    states_dim: int = 768
    width: int = 2048
    num_layers: int = 20
    num_heads: int = 32
    num_text_tokens: int = 77


class Attention(nn.Module):
    """Multi-head self-attention; the rows of ``c_qkv`` are ordered head -> [q | k | v]."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix ``x`` (B, N, W); ``bias`` (B, 1, N, N) is added to the scores of queries (rows) on keys (columns)."""
        qkv = self.c_qkv(x).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(-2))  # each (B, H, N, W/H)
        mixed: Tensor = self.c_proj(attend(q, k, v, bias).transpose(1, 2).flatten(-2))
        return mixed


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (..., W) to the same shape."""
        mapped: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return mapped


class ResidualBlock(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, num_heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map ``x`` (B, N, W) to the same shape; ``bias`` as in :class:`Attention`."""
        x = x + self.attn(self.ln_1(x), bias)
        x = x + self.mlp(self.ln_2(x))
        return x


class CausalTransformer(nn.Module):
    """A stack of residual blocks in which a token reads itself and the unpadded tokens before it."""

    def __init__(self, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualBlock(width, num_heads) for _ in range(num_layers))
        self._initialise(width, num_layers)

    def _initialise(self, width: int, num_layers: int) -> None:
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight"):  # the 2 * num_layers branches that add to the residual stream
                nn.init.normal_(weight, std=(2 * num_layers * width) ** -0.5)
            elif name.endswith(("c_qkv.weight", "c_fc.weight")):
                nn.init.normal_(weight, std=width**-0.5)
            elif name.endswith(("c_proj.bias", "c_qkv.bias", "c_fc.bias")):
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map tokens (B, N, W) to the same shape; ``valid`` (B, N) is False at padding, and True at the first token."""
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        hidden = ~(causal & valid[:, None, None, :])
        bias = torch.zeros(hidden.shape, dtype=x.dtype, device=x.device).masked_fill(hidden, -torch.inf)
        for block in self.resblocks:
            x = block(x, bias)
        return x


class PriorTransformer(nn.Module):
    """Predicts the clean image embedding from its noised version, the timestep and the text.

    Token order: text states, text embedding, timestep, noised image embedding, learned query. The output of the
    query, which alone can read everything, is the prediction.
    """

    def __init__(self, config: PriorTransformerConfig) -> None:
        super().__init__()
        width = config.width
        num_tokens = config.num_text_tokens + NUM_EXTRA_TOKENS
        self.config = config
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(1, num_tokens, width))
        self.prd_emb = nn.Parameter(0.01 * torch.randn(1, 1, width))
        self.time_embed = embedding_mlp(width, width)
        self.text_enc_proj = nn.Linear(config.states_dim, width)
        self.text_emb_proj = nn.Linear(config.embedding_dim, width)
        self.clip_img_proj = nn.Linear(config.embedding_dim, width)
        self.transformer = CausalTransformer(width, config.num_layers, config.num_heads)
        self.final_ln = nn.LayerNorm(width)
        self.out_proj = nn.Linear(width, config.embedding_dim)

    def forward(
        self, x_t: Tensor, timestep: Tensor, text_embedding: Tensor, text_states: Tensor, text_mask: Tensor
    ) -> Tensor:
        """Predict x0.

        Args:
            x_t: noised image embedding (B, D).
            timestep: original index (B,) in 0..T-1.
            text_embedding: CLIP text embedding (B, D).
            text_states: CLIP's per-token states (B, N, S), N <= ``num_text_tokens``: text after the last unpadded
                token may be left out, it changes nothing.
            text_mask: (B, N) bool, True up to and including the end-of-text token.

        Returns:
            The predicted clean image embedding (B, D).
        """
        batch, num_text = text_mask.shape
        time = self.time_embed(sinusoid(timestep, self.config.width).to(x_t.dtype))
        extra = torch.stack([self.text_emb_proj(text_embedding), time, self.clip_img_proj(x_t)], dim=1)
        query = self.prd_emb.to(x_t.dtype).expand(batch, -1, -1)
        tokens = torch.cat([self.text_enc_proj(text_states), extra, query], dim=1)  # (B, N + 4, W)

        valid = F.pad(text_mask, (0, NUM_EXTRA_TOKENS), value=True)
        tokens = self.transformer(tokens + self._positions(num_text).to(tokens.dtype), valid)
        prediction: Tensor = self.out_proj(self.final_ln(tokens[:, -1]))
        return prediction

    def _positions(self, num_text: int) -> Tensor:
        positions = self.positional_embedding
        return torch.cat([positions[:, :num_text], positions[:, -NUM_EXTRA_TOKENS:]], dim=1)
