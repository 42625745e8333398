"""Metrics of videos: FVD, FID and CLIP-FID of frames, the Inception Score and CLIPSIM, each over any extractor.

Videos are uint8 (B, 3, F, H, W). States merge exactly over processes and keep their type (``precise``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mav.errors import DataError
from lightning_mav.metrics.clip_similarity import ImageTextEncoder, clip_similarity, similarity_of_videos
from lightning_mav.metrics.extractors import Extractor
from lightning_mav.metrics.frames import as_stills, picked_frames
from lightning_mav.metrics.frechet import frechet_distance
from lightning_mav.metrics.inception_score import inception_score
from lightning_mav.metrics.moments import MomentsMetric
from lightning_mav.metrics.precise import PreciseMetric
from lightning_mav.seeding import hashed_seed


class FrechetVideoDistance(MomentsMetric):
    """FVD (Unterthiner et al. 2018): the Frechet distance of features of generated and of real videos.

    Args:
        extractor: Videos to features; published values rest on ``pretrained.i3d``.
        options: As of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    is_differentiable = False

    def __init__(self, extractor: Extractor, **options: Any) -> None:
        super().__init__(extractor.dim, ("real_moments", "generated_moments"), **options)
        self._extractor = (extractor,)  # a tuple keeps its network out of the module tree

    def update(self, videos: Tensor, real: bool) -> None:
        """Add videos of the real set or of the generated one.

        Raises:
            DataError: Videos that the extractor does not take.
            NumericError: A feature is not finite.
        """
        self.add("real_moments" if real else "generated_moments", self._extractor[0](self._shown(videos)))

    def compute(self) -> Tensor:
        """Return the distance of all videos so far, a float64 scalar.

        Raises:
            DataError: Fewer than two samples on a side.
        """
        distance = frechet_distance(self.moments_of("real_moments"), self.moments_of("generated_moments"))
        return torch.tensor(distance, dtype=torch.float64)

    def _shown(self, videos: Tensor) -> Tensor:
        return videos


class FrechetImageDistance(FrechetVideoDistance):
    """FID of frames (Heusel et al. 2017), or CLIP-FID; name the extractor and the frames with the number.

    Args:
        extractor: One-frame videos to features: ``pretrained.inception`` or ``clip_frames.ClipFrames``.
        frames: See ``frames.picked_frames``.
        options: As of ``torchmetrics.Metric``.
    """

    def __init__(self, extractor: Extractor, frames: str = "all", **options: Any) -> None:
        super().__init__(extractor, **options)
        self.frames = frames
        picked_frames(1, frames, 0)

    def _shown(self, videos: Tensor) -> Tensor:
        seen = sum(int(getattr(self, name)[0]) for name in self.sets)
        return torch.cat([as_stills(video, self._picked(video, seen + i)) for i, video in enumerate(videos)])

    def _picked(self, video: Tensor, key: int) -> list[int]:
        return picked_frames(video.shape[1], self.frames, key)


class VideoInceptionScore(PreciseMetric):
    """The Inception Score of videos, see ``inception_score`` for what its splits mean.

    Args:
        extractor: Videos to logits of classes; published values rest on ``pretrained.c3d``.
        splits: Number of splits.
        seed: Of the shuffle; with it the value depends on the set of videos alone, not on their order.
        options: As of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    is_differentiable = False
    logits: list[Tensor]

    def __init__(self, extractor: Extractor, splits: int = 10, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self._extractor, self.splits, self.seed = (extractor,), splits, seed
        self.add_state("logits", [], dist_reduce_fx="cat")

    def update(self, videos: Tensor) -> None:
        """Add generated videos."""
        self.logits.append(self._extractor[0](videos).double())

    def compute(self) -> Any:
        """Return mean and deviation over the splits, float64 scalars.

        Raises:
            DataError: Logits that are not finite, or fewer videos than splits.
        """
        found = inception_score(_sorted(_joined(self.logits)), self.splits, self.seed)
        return tuple(torch.tensor(value, dtype=torch.float64) for value in (found.mean, found.std))


class ClipSimilarity(PreciseMetric):
    """CLIPSIM (GODIVA, eq. 14): a cosine, averaged over frames, then videos, then prompts.

    Args:
        encoder: A CLIP; its name belongs to the number.
        options: As of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    is_differentiable = False
    similarities: list[Tensor]
    prompts: list[Tensor]

    def __init__(self, encoder: ImageTextEncoder, **options: Any) -> None:
        super().__init__(**options)
        self._encoder = (encoder,)
        for name in ("similarities", "prompts"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, videos: Tensor, prompts: Sequence[str]) -> None:
        """Add videos with their prompts."""
        self.similarities.append(similarity_of_videos(self._encoder[0], videos, prompts))
        numbers = [hashed_seed("prompt", prompt) for prompt in prompts]
        self.prompts.append(torch.tensor(numbers, device=videos.device))

    def compute(self) -> Tensor:
        """Return the mean cosine in [-1, 1], a float64 scalar.

        Raises:
            DataError: No video.
        """
        rows = torch.stack([_joined(self.prompts).double(), _joined(self.similarities)], 1)
        names, values = _sorted(rows).unbind(1)
        return torch.tensor(clip_similarity(values, [str(name) for name in names.tolist()]), dtype=torch.float64)


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """Return a list state as one tensor; after merging over processes it is one already."""
    if len(parts) == 0:
        raise DataError("no video was given; update the metric before computing it")
    return torch.cat(parts) if isinstance(parts, list) else parts


def _sorted(rows: Tensor) -> Tensor:
    """Bring rows (N, D) into an order of their own, so that sums do not depend on who added them."""
    for column in reversed(range(rows.shape[1])):
        rows = rows[rows[:, column].argsort(stable=True)]
    return rows
