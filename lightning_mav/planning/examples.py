"""Conditions that have the right shapes and no values."""

import torch

from lightning_mav.networks.encoders import TextEncoding, TextPair
from lightning_mav.networks.small_clip import CONTEXT


def example_text(batch: int, embedding_dim: int, states_dim: int) -> TextEncoding:
    """Return an encoded text: embedding (batch, embedding_dim) and states (batch, 77, states_dim)."""
    mask = torch.ones(batch, CONTEXT, dtype=torch.bool)
    return TextEncoding(torch.empty(batch, embedding_dim), torch.empty(batch, CONTEXT, states_dim), mask)


def example_text_pair(batch: int, text_dim: int | None) -> TextPair | None:
    """Return what a decoder with text of this width is given; None for one without."""
    return None if text_dim is None else (example_text(batch, text_dim, text_dim), example_text(1, text_dim, text_dim))
