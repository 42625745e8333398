"""Zero-shot benchmarks: videos for a data set's prompts, judged by a protocol's metrics, beside published numbers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from eval.benchmarks import Benchmark
from eval.extraction import Extraction, OnError, look_of, picture_of
from eval.features import Features, FeatureStore
from eval.folders import Clips, RealSet
from eval.kept import Kept
from eval.prompts import Prompt, list_hash
from eval.protocols import MetricSpec, Protocol, changes
from eval.results import provenance
from eval.scores import Score, conventions, score
from eval.store import write_json
from eval.systems import System
from eval.zero_shot_report import write_zero_shot_report
from lightning_mav.errors import ConfigError, DataError


@dataclass(frozen=True)
class ZeroShot:
    """A benchmark under a protocol.

    Attributes:
        data: Prompts and real videos.
        protocol: What is measured, and how.
        extractors: Name -> what builds the network.
        chunk: Videos per stored piece of work.
        limit: Uses only so many prompts and real videos, and lowers the protocol's counts to that; None for all.
        on_error: See ``Extraction``.
        max_errors: See ``Extraction``.
        device: Where networks of metrics run; None takes a GPU if there is one.
        gallery: Generated videos that the report can play.
        keep_videos: Keeps every generated video, so that other networks and frame sizes need none made again.
        store: Folder of the features, which all protocols share; None for one beside the results.
    """

    data: Benchmark
    protocol: Protocol | None
    extractors: Mapping[str, Callable[[], Any]]
    chunk: int = 16
    limit: int | None = None
    on_error: OnError = "refuse"
    max_errors: int | None = None
    device: str | None = None
    gallery: int = 40
    keep_videos: bool = False
    store: str | None = None

    def judge(self, system: System | RealSet, out: Path, seed: int, settings: dict[str, Any]) -> list[str]:
        """Evaluate; write results.json (the same bytes in every run), run.json, report.html; return lines to print."""
        began = perf_counter()
        results, gallery = self.evaluate(system, out, seed)
        if _share()[0] > 0:
            return []  # the first process writes for all
        write_json(results, out / "results.json")
        seconds = perf_counter() - began
        name = str(settings["system"].get("model") or settings["system"].get("path") or "real videos")
        run = {"system": name, "settings": settings, "seconds": seconds} | provenance()
        write_json(run, out / "run.json")
        page = write_zero_shot_report(results, run, gallery, out)
        lines = [_line(metric, one) for metric, one in results["scores"].items()]
        return [*lines, f"report: {page}"]

    def evaluate(self, system: System | RealSet, out: Path, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Generate, extract and score, skipping what is stored.

        Returns:
            Plain values, the same for every run; and the videos whose pictures are kept, each with its CLIPSIM.

        Raises:
            ConfigError: No protocol, or one of another benchmark.
            DataError: Videos or real videos that are missing, unusable or too few.
        """
        protocol = self._limited()
        real = self._real(protocol)
        prompts = self._some(self.data.prompts(protocol, seed))
        if len(prompts) < protocol.needed:  # found out before any video is made
            raise DataError(f"{len(prompts)} prompts, but protocol {protocol.name} takes {protocol.needed} videos")
        work = Extraction(protocol, self.extractors, seed, self.on_error, self.max_errors, self._device(), self.gallery)
        store = FeatureStore(Path(self.store or out / "store"), self.chunk, *_share())
        made = self._system(system, real)
        made = Kept(made, store.folder) if self.keep_videos else made
        generated = work.run("generated", store, made, prompts)
        references = work.run("real", store, real[1], self._some(real[0])) if real and _distances(protocol) else None
        scores = {name: _scored(spec, generated, references, seed) for name, spec in protocol.metrics.items()}
        results = {
            "benchmark": self.data.name,
            "protocol": asdict(protocol),
            "scores": {name: _as_row(protocol.metrics[name], work, one) for name, one in scores.items()},
            "prompts": {"n": len(prompts), "sha256": list_hash(prompts)},
            "real": None if real is None else {"n": len(real[0]), "sha256": list_hash(real[0])},
            "skipped": _skipped(generated, references),
            "changes": changes(protocol) + _stand_ins(protocol, work),
            "conventions": _conventions(protocol, generated, seed),
        }
        return results, _gallery(protocol, generated)

    def _limited(self) -> Protocol:
        """Return the protocol, its counts lowered to ``limit``."""
        protocol = self.protocol
        if not isinstance(protocol, Protocol):
            raise ConfigError("protocol: none is chosen; give one, such as protocol=msrvtt_mav")
        if protocol.benchmark != self.data.name:
            raise ConfigError(f"protocol: {protocol.name} is one of {protocol.benchmark}, not of {self.data.name}")
        if self.limit is None:
            return protocol
        metrics = {name: _lowered(spec, self.limit) for name, spec in protocol.metrics.items()}
        num = None if protocol.num_videos is None else min(protocol.num_videos, self.limit)
        return replace(protocol, metrics=metrics, num_videos=num)

    def _real(self, protocol: Protocol) -> tuple[list[Prompt], Clips] | None:
        """Return the real videos; they may be missing only where no metric needs them."""
        real, wanting = self.data.real(protocol), _distances(protocol)
        if real is None and wanting:
            raise DataError(
                f"{', '.join(wanting)}: needs real videos; set benchmark.data.videos to their folder, "
                "or choose other metrics with metric.only"
            )
        return real

    @staticmethod
    def _system(system: System | RealSet, real: tuple[list[Prompt], Clips] | None) -> System:
        if not isinstance(system, RealSet):
            return system
        if real is None:
            raise DataError("system=real needs the real videos; set benchmark.data.videos to their folder")
        return real[1]

    def _some(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the first ``limit`` prompts of evenly spaced ones, so that few still span all classes."""
        if self.limit is None or self.limit >= len(prompts):
            return list(prompts)
        return [prompts[i * len(prompts) // self.limit] for i in range(self.limit)]

    def _device(self) -> str:
        if self.device is not None:
            return self.device
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def _line(metric: str, one: dict[str, Any]) -> str:
    return f"{metric} {one['value']:.4g} +- {one['error']:.2g} (n = {one['n']:,})"


def _share() -> tuple[int, int]:
    """Return rank and number of processes, as torchrun tells them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _lowered(spec: MetricSpec, limit: int) -> MetricSpec:
    """Return a metric that makes do with ``limit`` videos."""
    repeats = max(1, min(spec.repeats, limit // (spec.num or limit)))
    num = None if spec.num is None else min(spec.num, limit // repeats)
    real = None if spec.num_real is None else min(spec.num_real, limit)
    return replace(spec, num=num, num_real=real, repeats=repeats, splits=min(spec.splits, num or limit))


def _distances(protocol: Protocol) -> list[str]:
    """Return the metrics that compare with real videos."""
    return [name for name, spec in protocol.metrics.items() if spec.kind == "frechet"]


def _scored(spec: MetricSpec, generated: Features, references: Features | None, seed: int) -> Score:
    real = references.tensors[look_of(spec)] if references is not None and spec.kind == "frechet" else None
    texts = [row["text"] for row in generated.kept]
    return score(spec, generated.tensors[look_of(spec)], real, texts, seed)


def _as_row(spec: MetricSpec, work: Extraction, found: Score) -> dict[str, Any]:
    about = {"network": work.network_name(spec), "fingerprint": work.fingerprint(spec)}
    return asdict(found) | {"spec": asdict(spec)} | about


def _stand_ins(protocol: Protocol, work: Extraction) -> list[str]:
    """Return which networks are not those that the protocol names."""
    specs = {spec.extractor: spec for spec in protocol.metrics.values()}
    names = {key: work.network_name(spec) for key, spec in specs.items()}
    return [f"{name} network for {key}" for key, name in names.items() if name != key]


def _skipped(*sets: Features | None) -> list[dict[str, str]]:
    rows = [row for one in sets if one is not None for row in one.rows]
    return [{"id": row["id"], "error": row["error"]} for row in rows if "error" in row]


def _conventions(protocol: Protocol, generated: Features, seed: int) -> dict[str, dict[str, Any] | None]:
    """Return the Inception Score in every published convention, where the protocol has one."""
    specs = [spec for spec in protocol.metrics.values() if spec.kind == "inception_score"]
    if not specs:
        return {}
    found = conventions(generated.tensors[look_of(specs[0])][:, 0], seed)
    return {name: None if one is None else asdict(one) for name, one in found.items()}


def _gallery(protocol: Protocol, generated: Features) -> list[dict[str, Any]]:
    """Return the videos whose pictures are kept, each with its CLIPSIM where the protocol has one."""
    specs = [spec for spec in protocol.metrics.values() if spec.kind == "clip_similarity"]
    values = generated.tensors[look_of(specs[0])].flatten().tolist() if specs else [None] * len(generated.kept)
    rows = []
    for row, value in zip(generated.kept, values, strict=True):
        file = picture_of(generated.folder, row["video"])
        if file.exists():
            shown = {"id": row["id"], "text": row["text"], "similarity": value}
            rows.append(shown | {"picture": file})
    return rows
