"""What networks trained on moving shapes see in a video, and how two sets of videos compare by it."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from eval.store import Row, Rows
from eval.video_classifier import FULLY, Training, VideoClassifier, as_extractor, class_logits, trained_classifier
from lightning_mav.data.transforms import quantise
from lightning_mav.metrics.clip_similarity import ImageTextEncoder, embed_frames, frame_similarity
from lightning_mav.metrics.extractors import NetworkExtractor
from lightning_mav.metrics.frechet import Estimate, jackknife
from lightning_mav.metrics.inception_score import inception_score
from lightning_mav.seeding import generator

VECTORS = ("features", "logits", "still")
"""Columns of a row that hold vectors."""
GROUPS = 20


class ClipSystem(Protocol):
    """A system whose CLIP was trained on moving shapes."""

    @property
    def clip(self) -> ImageTextEncoder:
        """The CLIP."""
        ...


class Looks:
    """Turns videos into vectors for FVD, FID and the Inception Score, and into CLIPSIM.

    Args:
        system: Whose CLIP looks at frames.
        folder: Where the trained video classifier is kept.
        prompts_of: Captions of videos by number.
        seed: Of the classifier.
        training: How long it is trained, if it is not there yet.
    """

    def __init__(
        self,
        system: ClipSystem,
        folder: Path,
        prompts_of: Callable[[Sequence[int]], list[str]],
        seed: int,
        training: Training = FULLY,
    ) -> None:
        self._system, self._prompts_of, self._seed, self._training = system, prompts_of, seed, training
        self._path = folder / f"video_classifier_{seed}.safetensors"

    @property
    def fingerprint(self) -> list[str]:
        """Changes with both networks."""
        return [self._extractor.fingerprint, self._clip.fingerprint]

    def __call__(self, videos: Tensor, ids: Sequence[int]) -> list[Row]:
        """Return what is seen in videos (B, 3, 16, H, W) in [-1, 1], one row each."""
        eight_bit = quantise(videos)
        features = self._extractor(eight_bit)
        frames = embed_frames(self._clip, eight_bit)
        text = self._clip.encode_text(self._prompts_of(ids)).embedding
        columns = {
            "features": features,
            "logits": class_logits(self._classifier, features),
            "still": frames[:, frames.shape[1] // 2],
            "clip_similarity": frame_similarity(frames, text),
        }
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]

    @cached_property
    def _clip(self) -> ImageTextEncoder:
        return self._system.clip

    @cached_property
    def _extractor(self) -> NetworkExtractor:
        return as_extractor(self._classifier, self._seed)

    @cached_property
    def _classifier(self) -> VideoClassifier:
        return trained_classifier(self._path, self._seed, self._training)


def compared(rows: Rows, reference: Rows) -> dict[str, Estimate]:
    """Return FVD and CLIP-FID from the reference, Inception Score and CLIPSIM, each with its error."""
    similarities = _column(rows, "clip_similarity")
    return {
        "fvd": jackknife(_column(rows, "features"), _column(reference, "features"), GROUPS),
        "clip_fid": jackknife(_column(rows, "still"), _column(reference, "still"), GROUPS),
        "inception_score": _inception_score(_column(rows, "logits")),
        "clipsim": Estimate(float(similarities.mean()), float(similarities.std() / len(similarities) ** 0.5)),
    }


def _inception_score(logits: Tensor) -> Estimate:
    """Return the score of one split, with a jackknife error."""
    order = torch.randperm(len(logits), generator=generator("looks", 0))
    groups = order.chunk(GROUPS)
    left_out = [inception_score(logits[torch.cat([*groups[:g], *groups[g + 1 :]])], 1).mean for g in range(len(groups))]
    spread = torch.tensor(left_out, dtype=torch.float64).var(correction=0)
    return Estimate(inception_score(logits, 1).mean, float(((len(groups) - 1) * spread).sqrt()))


def _column(rows: Rows, name: str) -> Tensor:
    return torch.tensor([row[name] for row in rows.rows], dtype=torch.float64)
