"""The published numbers: one row per printed number, with its source; a cell that no paper fills stays empty."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Benchmark = Literal["msrvtt", "ucf101"]
FILE = Path(__file__).with_name("published.yaml")
COLUMNS: dict[Benchmark, tuple[str, ...]] = {
    "msrvtt": ("clipsim", "fid_unspecified", "clip_fid", "clip_fid_vit_b32", "fid_inception_frames", "fid_vid", "fvd"),
    "ucf101": ("is", "fvd", "fid_unspecified", "fid_c3d"),
}
ALWAYS = ("NUWA", "CogVideo (Chinese)", "CogVideo (English)", "VDM", "Make-A-Video")  # shown also where they are empty


@dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
        system: Whose it is.
        benchmark: "msrvtt" or "ucf101".
        metric: A key of the file's ``metrics``, which says what it means.
        value: As printed; a CLIPSIM is a cosine.
        zero_shot: Whether the system never trained on the benchmark; None for real videos.
        read: "primary" if the paper's own text was read, else "secondary".
        source: Paper and table.
        samples_per_input: Videos per prompt.
        resolution: Side in pixels, or width x height.
        setting: What the system was trained on.
        std: Deviation as printed.
        note: What else the paper says.
        n: Number of generated videos.
        protocol: The preset that states the same conditions.
    """

    system: str
    benchmark: Benchmark
    metric: str
    value: float
    zero_shot: bool | None
    read: Literal["primary", "secondary"]
    source: str
    samples_per_input: int | None = None
    resolution: int | str | None = None
    setting: str | None = None
    std: float | None = None
    note: str | None = None
    n: int | None = None
    protocol: str | None = None


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def published(benchmark: Benchmark, zero_shot: bool | None = None) -> list[Published]:
    """Return the rows of a benchmark, in the file's order; ``zero_shot`` keeps only those that are, or are not."""
    rows = [Published(**row) for row in _content()["rows"] if row["benchmark"] == benchmark]
    return [row for row in rows if zero_shot is None or row.zero_shot == zero_shot]


def incomparable(row: Published, protocol: str, n: int) -> str | None:
    """Say why a measured number must not stand beside a published one; None if it may.

    Args:
        row: The published number.
        protocol: Preset of the measurement.
        n: Its number of videos.
    """
    if row.protocol is None:
        return "its protocol is not stated"
    if row.protocol != protocol:
        return f"protocol {protocol} against {row.protocol}"
    if row.n is None:
        return "its number of videos is not stated"
    return None if row.n == n else f"n = {n:,} against {row.n:,}"


def table(benchmark: Benchmark) -> str:
    """Return the published numbers of a benchmark as a plain table, zero-shot systems first."""
    rows = published(benchmark)
    groups = [("zero-shot", True), ("trained on the benchmark", False), ("real videos", None)]
    lines = [_line(("system", *COLUMNS[benchmark]))]
    for title, zero_shot in groups:
        members = [row for row in rows if row.zero_shot is zero_shot]
        names = list(dict.fromkeys(row.system for row in members))
        names += [name for name in ALWAYS if zero_shot and not any(row.system == name for row in rows)]
        lines += ["", title, *(_system(name, members, COLUMNS[benchmark]) for name in names)]
    return "\n".join(lines)


def _system(name: str, rows: Sequence[Published], metrics: Sequence[str]) -> str:
    """Return one system's line; papers that print different values for a cell all stand in it."""
    cells = {metric: [f"{r.value:g}" for r in rows if (r.system, r.metric) == (name, metric)] for metric in metrics}
    return _line((name, *(" / ".join(cells[metric]) or "-" for metric in metrics)))


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:34s}" + "".join(f"{cell:>22s}" for cell in cells[1:])


def show() -> str:
    """Return everything as text: both tables, the human evaluation, and what the columns mean."""
    content = _content()
    meanings = [f"{name:22s}{one['better']} is better; {one['text']}" for name, one in content["metrics"].items()]
    parts = [f"MSR-VTT\n\n{table('msrvtt')}", f"UCF-101\n\n{table('ucf101')}", _votes(content["human_evaluation"])]
    return "\n\n".join([*parts, "\n".join(meanings), f"every row with its source: {FILE}"])


def _votes(rows: Sequence[dict[str, Any]]) -> str:
    lines = [_line(("Make-A-Video preferred over", "quality", "faithfulness"))]
    for row in rows:
        cells = (row["against"], _share(row["quality"]), _share(row["faithfulness"]))
        lines.append(f"{_line(cells)}  {row['prompts']}")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:g} %"
