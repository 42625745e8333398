"""Protocols: everything that decides a number beside the system. Published values are only comparable within one.

Each preset is a file configs/eval/protocol/NAME.yaml; what its paper leaves open stands under ``unstated``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from eval.ucf101 import PromptList
from lightning_mav.errors import ConfigError
from lightning_mav.metrics.frames import picked_frames

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "eval" / "protocol"
Kind = Literal["frechet", "inception_score", "clip_similarity"]
Captions = Literal["all", "ascii", "one_per_video"]
Window = Literal["first", "middle", "random"]


@dataclass(frozen=True)
class MetricSpec:
    """One number of a protocol.

    Attributes:
        kind: Which formula.
        extractor: A key of the ``extractor`` group.
        column: Column of the published table that it belongs to.
        num: Generated videos that enter, the first ones in a shuffled order; None takes all.
        num_real: The same for real videos.
        frames: Which frames enter, for metrics of images; see ``picked_frames``. None takes the video as a whole.
        splits: Parts that the videos of one score are cut into (Inception Score).
        repeats: Scores of ``num`` fresh videos each that are averaged.
    """

    kind: Kind
    extractor: str
    column: str
    num: int | None = None
    num_real: int | None = None
    frames: str | None = None
    splits: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"protocol.metrics: '{self.kind}' is none of {', '.join(get_args(Kind))}")
        if self.frames is not None:
            picked_frames(1, self.frames, 0)


@dataclass(frozen=True)
class Protocol:
    """How the numbers of one paper are made.

    Attributes:
        name: Its preset.
        benchmark: Whose prompts and real videos it takes: "msrvtt" or "ucf101".
        source: Where it is described.
        captions: MSR-VTT: which captions.
        prompt_list: UCF-101: which text stands for a class.
        num_videos: Generated videos; None makes one per prompt, or as many as there are real ones.
        share: UCF-101: videos per class, the same for all or in proportion to the train split.
        frames: Frames of a generated video and of a window of a real one.
        fps: Frames per second of both; None leaves it to the videos and the system.
        size: Height and width of generated frames, None as they come.
        crop: Side of the central square that is cut from them before extraction.
        real_split: Which real videos.
        real_window: Which frames of them.
        metrics: The numbers, by name.
        unstated: What the paper leaves open, and what this preset does there.
    """

    name: str
    benchmark: str
    source: str
    frames: int
    metrics: Mapping[str, MetricSpec]
    captions: Captions = "all"
    prompt_list: PromptList = "class_names"
    num_videos: int | None = None
    share: Literal["even", "train"] = "even"
    fps: float | None = None
    size: tuple[int, int] | None = None
    crop: int | None = None
    real_split: Literal["train", "test", "all"] = "train"
    real_window: Window = "first"
    unstated: Sequence[str] = ()

    def __post_init__(self) -> None:
        choices = {"captions": Captions, "real_window": Window, "prompt_list": PromptList}
        for field, kind in choices.items():
            if getattr(self, field) not in get_args(kind):
                raise ConfigError(f"protocol.{field}: '{getattr(self, field)}' is none of {', '.join(get_args(kind))}")
        if not self.metrics:
            raise ConfigError("protocol.metrics: names no metric; choose some with metric.only=[...]")

    @property
    def needed(self) -> int:
        """Generated videos without which some number cannot be made."""
        return max([(spec.num or 0) * spec.repeats for spec in self.metrics.values()] + [1])


def make_protocol(metrics: Mapping[str, Mapping[str, Any]], only: Sequence[str] | None = None, **rest: Any) -> Protocol:
    """Return a protocol from plain values.

    Args:
        metrics: Arguments of ``MetricSpec`` by name.
        only: Names of the metrics to keep; None keeps all.
        rest: Other arguments of ``Protocol``.

    Raises:
        ConfigError: A name in ``only`` that the protocol has not, or a wrong value.
    """
    if unknown := [name for name in only or () if name not in metrics]:
        raise ConfigError(f"metric.only: protocol {rest['name']} has no '{unknown[0]}', only {', '.join(metrics)}")
    kept = {name: MetricSpec(**values) for name, values in metrics.items() if only is None or name in only}
    size = rest.pop("size", None)
    return Protocol(metrics=kept, size=tuple(size) if isinstance(size, Sequence) else None, **rest)


def preset(name: str) -> Protocol:
    """Return a protocol as its file has it.

    Raises:
        ConfigError: No such file.
    """
    file = FOLDER / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(
            f"protocol.name: '{name}' is none of {', '.join(sorted(p.stem for p in FOLDER.glob('*.yaml')))}"
        )
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return make_protocol(**{key: value for key, value in values.items() if key not in ("_target_", "only")})


def changes(protocol: Protocol) -> list[str]:
    """Return what differs from the protocol's preset; leaving out metrics is no change, and counts are shown as n."""
    original = preset(protocol.name)
    settings = [f.name for f in fields(Protocol) if f.name not in ("metrics", "num_videos")]
    found = [name for name in settings if _plain(getattr(protocol, name)) != _plain(getattr(original, name))]
    return found + [name for name, spec in protocol.metrics.items() if not _same(spec, original.metrics.get(name))]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _same(spec: MetricSpec, original: MetricSpec | None) -> bool:
    """Compare all but the counts."""
    what = ("kind", "extractor", "column", "frames")
    return original is not None and all(getattr(spec, name) == getattr(original, name) for name in what)
