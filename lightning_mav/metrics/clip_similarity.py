"""CLIPSIM (GODIVA, eq. 14): the cosine of a text and each frame, averaged over frames, then videos, then prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mav.errors import DataError


def frame_similarity(frames: Tensor, text: Tensor) -> Tensor:
    """Return the mean cosine (B,) of frame embeddings (B, F, D) and text embeddings (B, D), in [-1, 1], not clamped."""
    cosine = F.cosine_similarity(frames.double(), text.double()[:, None], dim=-1)
    return cosine.mean(1)


def clip_similarity(similarities: Tensor, prompts: Sequence[str]) -> float:
    """Return the mean over prompts of the mean over each prompt's videos, so that no prompt counts twice.

    Args:
        similarities: (B,) of ``frame_similarity``.
        prompts: B names of prompts.

    Raises:
        DataError: Numbers that do not match, or none.
    """
    if not prompts or len(prompts) != len(similarities):
        raise DataError(f"{len(similarities)} similarities came with {len(prompts)} prompts; each video needs its own")
    distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    group = torch.tensor([distinct[prompt] for prompt in prompts])
    sums = torch.zeros(len(distinct), dtype=torch.float64).index_add(0, group, similarities.double().cpu())
    return float((sums / group.bincount()).mean())
