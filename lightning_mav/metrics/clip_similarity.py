"""CLIPSIM (GODIVA, eq. 14): the cosine of a text and each frame, averaged over frames, then videos, then prompts."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mav.errors import DataError


class ImageTextEncoder(Protocol):
    """A CLIP, as ``checkpoint.clip.load_clip`` returns it."""

    @property
    def embedding_dim(self) -> int:
        """D, the width of the joint embedding."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with weights and preprocessing."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed square images (B, 3, H, W) in [-1, 1] as (B, D)."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Any:
        """Embed texts; the result's ``embedding`` is (B, D)."""
        ...


def embed_frames(encoder: ImageTextEncoder, videos: Tensor) -> Tensor:
    """Return float32 embeddings (B, F, D) of the central squares of uint8 videos (B, 3, F, H, W)."""
    b, _, f, height, width = videos.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = videos[..., top : top + side, left : left + side].transpose(1, 2).flatten(0, 1)
    with torch.inference_mode(), torch.autocast(videos.device.type, enabled=False):
        return encoder.encode_image(frames.float() / 127.5 - 1).float().view(b, f, -1)


def similarity_of_videos(encoder: ImageTextEncoder, videos: Tensor, texts: Sequence[str]) -> Tensor:
    """Return the mean cosine (B,) float64 between uint8 videos (B, 3, F, H, W) and their B texts."""
    with torch.inference_mode():
        text = encoder.encode_text(list(texts)).embedding
    return frame_similarity(embed_frames(encoder, videos), text.to(videos.device))


class ClipFrames:
    """The ``Extractor`` of CLIP-FID: image embeddings, not normalised, of one-frame videos.

    Args:
        encoder: A CLIP.
        name: Of its model, for tables: CLIP-FIDs of different CLIPs are not comparable.
    """

    def __init__(self, encoder: ImageTextEncoder, name: str) -> None:
        self._encoder = encoder
        self.name, self.dim, self.fingerprint = name, encoder.embedding_dim, encoder.fingerprint

    def __call__(self, video: Tensor) -> Tensor:
        """Return float32 features (B, D) of uint8 videos (B, 3, 1, H, W).

        Raises:
            DataError: Videos of more than one frame.
        """
        if video.shape[2] != 1:
            raise DataError(f"{self.name} needs exactly 1 frame, but the videos have {video.shape[2]}")
        return embed_frames(self._encoder, video)[:, 0]


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
