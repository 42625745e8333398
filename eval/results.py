"""What a benchmark measured, each number with its bar, its count and its cost."""

import operator
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.looks import VECTORS
from eval.store import Rows
from lightning_mav.errors import ConfigError

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Measure:
    """One number of the report.

    Attributes:
        part: What was measured, for example "decoder".
        name: Which of its properties, for example "text_faithful".
        value: The number.
        unit: "share", "points" (of a share), "ratio", "dB", or empty.
        n: How many videos it rests on.
        seconds: Wall time that its videos took, also where several measures share them.
        bar: The bar as written in the configuration, for example ">= 0.95"; empty for numbers only reported.
        error: Its standard error, where it was estimated.
    """

    part: str
    name: str
    value: float
    unit: str
    n: int
    seconds: float
    bar: str = ""
    error: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the value clears its bar; None without one."""
        return clears(self.value, self.bar) if self.bar else None


def clears(value: float, bar: str) -> bool:
    """Say whether ``value`` satisfies a bar such as ">= 0.95".

    Raises:
        ConfigError: The bar cannot be read.
    """
    match = re.fullmatch(r"(>=|<=|>|<|==)\s*(-?[\d.]+)", bar.strip())
    if not match:
        raise ConfigError(f"benchmark.bars: '{bar}' is no bar; write one like '>= 0.95'")
    return _COMPARISONS[match[1]](value, float(match[2]))


def bar_of(bars: Mapping[str, Mapping[str, str]], part: str, name: str) -> str:
    """Return the bar of a measure, empty if it has none."""
    return bars.get(part, {}).get(name, "")


def as_json(settings: Any, measures: Sequence[Measure], sets: Mapping[str, Rows], out: Path) -> dict[str, Any]:
    """Return everything a report needs as plain values.

    Args:
        settings: The resolved configuration.
        measures: What was measured.
        sets: The sets of videos of which pictures are kept.
        out: Folder that paths are relative to.
    """
    return {
        "settings": settings,
        "measures": [asdict(measure) | {"passed": measure.passed} for measure in measures],
        "sets": {name: _brief(rows, out) for name, rows in sets.items()},
    } | provenance()


def _brief(rows: Rows, out: Path) -> dict[str, Any]:
    """Return rows without the vectors that networks made of videos; the store keeps them."""
    brief = [{name: value for name, value in row.items() if name not in VECTORS} for row in rows.rows]
    return {"folder": str(rows.folder.relative_to(out)), "rows": brief}


def provenance() -> dict[str, Any]:
    """Return when this was, and with which versions of what."""
    versions = {name: version(name) for name in ("torch", "lightning", "numpy", "pillow")} | {"commit": _commit()}
    return {"finished": datetime.now(timezone.utc).isoformat(timespec="seconds"), "versions": versions}


def _commit() -> str:
    """Return the commit of these sources, "unknown" where they are in no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
