"""From videos to features: every extractor that a protocol names sees each video once, while it is in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eval.features import Features, FeatureStore, Row, Work
from eval.prompts import Prompt
from eval.protocols import MetricSpec, Protocol
from eval.reading import fit
from eval.systems import System
from lightning_mav.data.transforms import dequantise, quantise
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.media import write_video
from lightning_mav.metrics.clip_similarity import ClipFrames, similarity_of_videos
from lightning_mav.metrics.frames import as_stills, picked_frames

OnError = Literal["refuse", "skip"]


@dataclass(frozen=True)
class Extraction:
    """How the videos of a set become features.

    Attributes:
        protocol: What is looked at.
        extractors: Name -> what builds the network; only those that the protocol names are built.
        seed: Of generation, of random windows and frames.
        on_error: What a video that cannot be used does: "refuse" to give any number, or "skip" it.
        max_errors: Most videos that may be skipped.
        device: Where networks run.
        gallery: Generated videos whose pictures are kept for the report.
    """

    protocol: Protocol
    extractors: Mapping[str, Callable[[], Any]]
    seed: int
    on_error: OnError = "refuse"
    max_errors: int | None = None
    device: str = "cpu"
    gallery: int = 0

    def __post_init__(self) -> None:
        if self.on_error == "skip" and self.max_errors is None:
            raise ConfigError("benchmark.on_error=skip needs a limit; set benchmark.max_errors, for example to 10")
        for spec in self.protocol.metrics.values():
            if spec.extractor not in self.extractors:
                raise ConfigError(f"extractor: has no '{spec.extractor}', which protocol {self.protocol.name} names")

    def run(self, name: str, store: FeatureStore, system: System, prompts: Sequence[Prompt]) -> Features:
        """Return the features of a system's videos, made or found in the store.

        Raises:
            DataError: More videos than allowed cannot be used.
        """
        p = self.protocol
        key = [system.fingerprint(), self.seed, p.frames, p.fps, p.size, p.crop]
        looks = {look: self.fingerprint(spec) for look, spec in self._looks(name).items()}
        found = store.extract(name, key, looks, [p.key for p in prompts], self._worker(name, system, prompts))
        self._check([row for row in found.rows if "error" in row])
        return found

    def _worker(self, name: str, system: System, prompts: Sequence[Prompt]) -> Work:
        specs = self._looks(name)
        shown = self._shown(prompts) if name != "real" else set()

        def work(places: Sequence[int], looks: Sequence[str], folder: Path) -> tuple[list[Row], dict[str, Tensor]]:
            chosen = [prompts[i] for i in places]
            videos, errors = self._videos(system, chosen)
            self._check([{"id": key, "error": reason} for key, reason in errors.items()])
            rows = [{"id": p.id, "text": p.text} | ({"error": errors[p.id]} if p.id in errors else {}) for p in chosen]
            usable = [p for p in chosen if p.id not in errors]
            self._keep([(v, p) for v, p in self._with(videos, usable) if p.key in shown], folder)
            videos = [video.to(self.device) for video in videos]
            return rows, {look: self._features(specs[look], videos, usable) for look in looks}

        return work

    def _shown(self, prompts: Sequence[Prompt]) -> set[str]:
        """Return the keys of the videos whose pictures are kept, evenly spaced."""
        num = len(prompts)
        return {prompts[i * num // self.gallery].key for i in range(min(self.gallery, num))}

    def _keep(self, videos: Sequence[tuple[Tensor, Prompt]], folder: Path) -> None:
        for video, prompt in videos:
            write_video(dequantise(video), picture_of(folder, prompt.key), self.protocol.fps or 25.0)

    def _videos(self, system: System, prompts: Sequence[Prompt]) -> tuple[list[Tensor], dict[str, str]]:
        """Return the usable videos, uint8 (3, F, H, W), and why others are not, by id."""
        try:
            return self._generated(system, prompts), {}
        except DataError as error:
            if len(prompts) == 1:
                return [], {prompts[0].id: str(error)}
        parts = [self._videos(system, [prompt]) for prompt in prompts]
        return [v for videos, _ in parts for v in videos], {k: e for _, errors in parts for k, e in errors.items()}

    def _generated(self, system: System, prompts: Sequence[Prompt]) -> list[Tensor]:
        p = self.protocol
        videos = system.generate(prompts, p.fps, p.frames, self.seed)
        fitted = [fit(quantise(video.cpu()), p.size, p.crop) for video in videos]
        if wrong := [video.shape[1] for video in fitted if video.shape[1] != p.frames]:
            raise DataError(f"{prompts[0].id}: {wrong[0]} frames, but protocol {p.name} looks at {p.frames}")
        return fitted

    def _features(self, spec: MetricSpec, videos: Sequence[Tensor], prompts: Sequence[Prompt]) -> Tensor:
        """Return (B, k, D): k vectors of each video."""
        network = self._network(spec)
        if spec.kind == "clip_similarity":
            return _stacked(
                [similarity_of_videos(network, v[None], [p.text]) for v, p in self._with(videos, prompts)], 1
            )
        if spec.frames is None:
            return _stacked([network(video[None]) for video in videos], network.dim)
        pairs = self._with(videos, prompts)
        picked = [as_stills(v, picked_frames(v.shape[1], spec.frames, p.id)) for v, p in pairs]
        return _stacked([network(stills) for stills in picked], network.dim)

    @staticmethod
    def _with(videos: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[tuple[Tensor, Prompt]]:
        return list(zip(videos, prompts, strict=True))

    def _looks(self, name: str) -> dict[str, MetricSpec]:
        """Return what is extracted of a set, once for metrics that share it; real videos only what distances need."""
        specs = self.protocol.metrics.values()
        return {look_of(spec): spec for spec in specs if name != "real" or spec.kind == "frechet"}

    def _network(self, spec: MetricSpec) -> Any:
        network = self._built[spec.extractor]
        images = spec.kind == "frechet" and hasattr(network, "encode_image")
        return ClipFrames(network, spec.extractor) if images else network

    @cached_property
    def _built(self) -> dict[str, Any]:
        names = {spec.extractor for spec in self.protocol.metrics.values()}
        return {name: self.extractors[name]() for name in sorted(names)}

    def network_name(self, spec: MetricSpec) -> str:
        """Return what a metric's network calls itself; "random" for a stand-in."""
        return str(getattr(self._built[spec.extractor], "name", spec.extractor))

    def fingerprint(self, spec: MetricSpec) -> str:
        """Return what stands for a metric's network and its preprocessing."""
        found: str = self._network(spec).fingerprint
        return found

    def _check(self, errors: Sequence[Row]) -> None:
        allowed = self.max_errors if self.on_error == "skip" and self.max_errors is not None else 0
        if len(errors) > allowed:
            names = ", ".join(row["id"] for row in errors[:5]) + (", ..." if len(errors) > 5 else "")
            raise DataError(
                f"{len(errors)} videos cannot be used ({names}): {errors[0]['error']}; "
                "mend them, or set benchmark.on_error=skip and benchmark.max_errors"
            )


def look_of(spec: MetricSpec) -> str:
    """Name the features that a metric rests on; metrics with the same name share them."""
    what = "similarity" if spec.kind == "clip_similarity" else spec.frames or "video"
    return f"{spec.extractor}/{what}"


def picture_of(folder: Path, key: str) -> Path:
    """Return where the picture of a video lies, if it is kept."""
    return folder / "pictures" / f"{key}.webp"


def _stacked(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Stack one (k, D) per video as (B, k, D)."""
    if not parts:
        return torch.zeros(0, 1, dim)
    return torch.stack([part.reshape(-1, dim) for part in parts])
