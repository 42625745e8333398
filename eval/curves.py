"""Training curves and times out of run folders, drawn as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRAIN, VALIDATION = "train/loss", "val/loss"
WIDTH, HEIGHT, LEFT, BOTTOM = 320, 150, 44, 20  # SVG units


@dataclass(frozen=True)
class Curve:
    """One logged number: optimiser steps and values."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Training:
    """What the logs of one run say.

    Attributes:
        name: The run folder's name.
        seconds: Wall time from the first logged step to the last.
        curves: Logged losses by tag.
    """

    name: str
    seconds: float
    curves: dict[str, Curve]


def read_trainings(folder: Path) -> list[Training]:
    """Read the TensorBoard logs of every run in ``folder``, in the order in which they were trained."""
    runs = [run for run in sorted(folder.iterdir()) if any(run.glob("logs/**/events.out.tfevents.*"))]
    found = [(start, training) for run in runs for start, training in [_read(run)] if training.curves]
    return [training for _, training in sorted(found, key=lambda pair: pair[0])]


def _read(run: Path) -> tuple[float, Training]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events: dict[str, dict[int, float]] = {TRAIN: {}, VALIDATION: {}}
    seconds, start = 0.0, math.inf
    for file in sorted(run.glob("logs/**/events.out.tfevents.*")):
        log = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        scalars = {tag: log.Scalars(tag) for tag in events if tag in log.Tags()["scalars"]}
        times = [event.wall_time for logged in scalars.values() for event in logged]
        if times:
            seconds, start = seconds + max(times) - min(times), min(start, *times)
        for tag, logged in scalars.items():
            events[tag] |= {event.step: event.value for event in logged if math.isfinite(event.value)}
    curves = {
        tag: Curve(sorted(values), [values[i] for i in sorted(values)]) for tag, values in events.items() if values
    }
    return start, Training(run.name, seconds, curves)


def draw(training: Training) -> str:
    """Draw a run's losses, on a logarithmic axis, the training loss smoothed."""
    curves = {tag: _smooth(c) if tag == TRAIN else c for tag, c in training.curves.items()}
    values = [v for curve in curves.values() for v in curve.values if v > 0]
    last = max(step for curve in curves.values() for step in curve.steps)
    low, high = math.log10(min(values)), math.log10(max(values))
    high = max(high, low + 0.1)

    def point(step: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 4) * step / max(last, 1)
        y = 6 + (HEIGHT - BOTTOM - 6) * (high - math.log10(max(value, 10**low))) / (high - low)
        return f"{x:.1f},{y:.1f}"

    lines = "".join(
        f'<polyline class="{tag.split("/")[0]}" points="{" ".join(map(point, curve.steps, curve.values))}"/>'
        for tag, curve in curves.items()
    )
    ticks = [10 ** (low + (high - low) * share) for share in (0, 0.5, 1)]
    grid = "".join(_grid(point(0, tick), tick) for tick in ticks)
    axis = f'<text x="{LEFT}" y="{HEIGHT - 5}">0</text>'
    axis += f'<text x="{WIDTH - 4}" y="{HEIGHT - 5}" class="end">{last:,} steps</text>'
    title = f"loss of {training.name}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{grid}{lines}{axis}</svg>'


def _grid(place: str, value: float) -> str:
    y = place.split(",")[1]
    line = f'<line x1="{LEFT}" x2="{WIDTH - 4}" y1="{y}" y2="{y}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{float(y) + 3:.1f}" class="end">{value:.2g}</text>'


def _smooth(curve: Curve, points: int = 120) -> Curve:
    """Average a curve over equal pieces, so that it shows its course."""
    size = max(1, len(curve.steps) // points)
    pieces = [slice(i, i + size) for i in range(0, len(curve.steps), size)]
    return Curve([curve.steps[p][-1] for p in pieces], [_mean(curve.values[p]) for p in pieces])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
