"""The moving shapes benchmark: is motion that no text names learned from silent videos, and is each stage worth it?"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from eval.controls import CONTROLS
from eval.looks import Looks, compared
from eval.report import write_report
from eval.results import Measure, as_json, bar_of
from eval.sets import DECODER_FPS, FINAL_FPS, FINAL_FRAMES, FRAMES, SKIP, SLOW_FPS, Sets, prompts_of
from eval.store import Rows, Store, write_json
from eval.systems import MakeAVideoSystem
from lightning_mav.errors import ConfigError
from lightning_mav.metrics.frechet import Estimate

VERDICTS = ("text_faithful", "background_right", "dominant_motion", "strict_law")
SKIPS = {2: 31, 3: 46, 4: 61}  # frame skip -> frames that 16 become


@dataclass(frozen=True)
class MovingShapes:
    """The benchmark and its size; see configs/eval/benchmark/moving_shapes.yaml.

    Attributes:
        num_prompts: Videos of each generated set.
        num_references: Real videos given to interpolation and super-resolution.
        chunk: Videos per stored piece of work.
        gallery: Videos of each set that the report plays.
        parts: What to measure, of ``PARTS``.
        bars: part -> measure -> bar, for example ">= 0.95".
    """

    num_prompts: int
    num_references: int
    chunk: int
    gallery: int
    parts: Sequence[str]
    bars: Mapping[str, Mapping[str, str]]

    def __post_init__(self) -> None:
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise ConfigError(f"benchmark.parts: '{unknown[0]}' is none of {', '.join(PARTS)}")

    def judge(self, system: MakeAVideoSystem, out: Path, seed: int, settings: dict[str, Any]) -> list[str]:
        """Evaluate, write results.json and report.html; return lines to print."""
        began = perf_counter()
        measures, sets = self.evaluate(system, out, seed)
        results = as_json(settings, measures, sets, out)
        write_json(results, out / "results.json")
        page = write_report(results, out, system.folder)
        below = [f"{m.part} {m.name} {m.value:.3g} (bar {m.bar})" for m in measures if m.passed is False]
        judged = sum(m.passed is not None for m in measures)
        tally = f"{judged - len(below)} of {judged} bars cleared in {perf_counter() - began:.0f} s"
        return [tally, *(f"below its bar: {line}" for line in below), f"report: {page}"]

    def evaluate(self, system: MakeAVideoSystem, out: Path, seed: int) -> tuple[list[Measure], dict[str, Rows]]:
        """Measure every part, skipping what is stored.

        Returns:
            the measures, and the sets of videos of which pictures are kept.
        """
        store = Store(out / "store", self.chunk)
        looks = Looks(system, store.folder, prompts_of, seed) if "distances" in self.parts else None
        sets = Sets(system, store, seed, self.num_prompts, self.num_references, self.gallery, looks)
        measures = [measure for part in self.parts for measure in PARTS[part](sets, self._measure)]
        return measures, sets.kept

    def _measure(
        self, part: str, name: str, value: float, rows: Rows, unit: str = "share", error: float | None = None
    ) -> Measure:
        return Measure(part, name, value, unit, len(rows.rows), rows.seconds, bar_of(self.bars, part, name), error)


Measuring = Callable[..., Measure]


def references(sets: Sets, measure: Measuring) -> list[Measure]:
    """Check the oracle itself: real videos pass; still, jittered and wrongly moving ones fail."""
    size = sets.system.frame_size()
    found = {kind: sets.real(kind, DECODER_FPS, FRAMES, size) for kind in CONTROLS}
    return [one for kind, rows in found.items() for one in _verdicts(kind, rows, measure)]


def decoder(sets: Sets, measure: Measuring) -> list[Measure]:
    """Judge the decoder's videos at 16 fps, and their smoothness beside real ones."""
    rows, real = sets.decoder(DECODER_FPS), sets.real("real", DECODER_FPS, FRAMES, sets.system.frame_size())
    return [
        *_verdicts("decoder", rows, measure),
        measure("decoder", "difference_to_real", _difference(rows, real), rows, "ratio"),
    ]


def control(sets: Sets, measure: Measuring) -> list[Measure]:
    """Compare with the decoder before video training: faithful to the text, incoherent in time."""
    rows, trained = sets.control(), sets.decoder(DECODER_FPS)
    gap = trained.mean("dominant_motion") - rows.mean("dominant_motion")
    return [
        *_verdicts("control", rows, measure),
        measure("control", "dominant_gap", gap, rows, "points"),
        measure("decoder", "difference_to_control", _difference(trained, rows), rows, "ratio"),
    ]


def fps(sets: Sets, measure: Measuring) -> list[Measure]:
    """Ask the decoder for fewer frames per second, same prompts and seeds: neighbours must differ more."""
    slow, fast = sets.decoder(SLOW_FPS), sets.decoder(DECODER_FPS)
    return [
        measure("fps", "ratio", _difference(slow, fast), slow, "ratio"),
        *_verdicts("fps", slow, measure),
    ]


def prior(sets: Sets, measure: Measuring) -> list[Measure]:
    """Compare the prior's embeddings of held-out captions with those of real stills."""
    rows = sets.prior()
    cosine, text_cosine = rows.mean("cosine"), rows.mean("text_cosine")
    return [
        measure("prior", "cosine", cosine, rows, ""),
        measure("prior", "text_cosine", text_cosine, rows, ""),
        measure("prior", "cosine_gain", cosine - text_cosine, rows, ""),
        measure("prior", "retrieval", rows.mean("retrieved"), rows),
    ]


def interpolation(sets: Sets, measure: Measuring) -> list[Measure]:
    """Fill in missing frames of real videos, against linear blending."""
    at_16, at_30 = sets.interpolation(DECODER_FPS, SKIP), sets.interpolation(FINAL_FPS, SKIP)
    others = {skip: sets.interpolation(DECODER_FPS, skip) for skip in SKIPS}
    lengths = all(row["length"] == SKIPS[skip] for skip, rows in others.items() for row in rows.rows)
    error = max(row["given_error"] for rows in (at_16, at_30, *others.values()) for row in rows.rows)
    return [
        *_gains("interpolation", at_16, measure, "_16fps"),
        *_gains("interpolation", at_30, measure, "_30fps"),
        *(measure("interpolation", f"gain_skip{skip}", _gain(rows), rows, "dB") for skip, rows in others.items()),
        measure("interpolation", "lengths_right", float(lengths), at_16, ""),
        measure("interpolation", "given_frames_error", error, at_16, ""),
        measure("interpolation", "input_channels", sets.system.interpolation_channels(), at_16, ""),
    ]


def sr_spacetime(sets: Sets, measure: Measuring) -> list[Measure]:
    """Enlarge real videos by SR_l, against bicubic enlargement."""
    return _gains("sr_spacetime", sets.enlarged("sr_spacetime"), measure)


def sr_spatial(sets: Sets, measure: Measuring) -> list[Measure]:
    """Enlarge real videos by SR_h, against bicubic enlargement."""
    return _gains("sr_spatial", sets.enlarged("sr_spatial"), measure)


def final(sets: Sets, measure: Measuring) -> list[Measure]:
    """Judge what the whole cascade makes: 76 frames at 30 fps from the decoder's 16 at 6 fps."""
    rows, trained = sets.final(), sets.decoder(DECODER_FPS)
    sets.cascade()
    size = sets.system.frame_size() * sets.system.scale("sr_spacetime") * sets.system.scale("sr_spatial")
    real = sets.real("real", FINAL_FPS, FINAL_FRAMES, size, sets.num_references)
    drop = trained.mean("dominant_motion") - rows.mean("dominant_motion")
    return [
        *_verdicts("final", rows, measure),
        measure("final", "dominant_drop", drop, rows, "points"),
        measure("final", "difference_to_real", _difference(rows, real), rows, "ratio"),
    ]


def distances(sets: Sets, measure: Measuring) -> list[Measure]:
    """Compare whole sets, by networks trained on moving shapes: FVD, CLIP-FID, Inception Score, CLIPSIM."""
    reference = sets.looked_at("real", other=1)
    judged = {"real": sets.looked_at("real"), "decoder": sets.decoder(DECODER_FPS), "control": sets.control()}
    found = {name: compared(rows, reference) for name, rows in judged.items()}
    return [
        *(
            measure(name, metric, one.value, judged[name], "", one.error)
            for name, values in found.items()
            for metric, one in values.items()
        ),
        measure("real", "fvd_over_error", _over_error(found["real"]["fvd"]), judged["real"], ""),
        measure("control", "fvd_gap_over_error", _gap(found, "fvd"), judged["control"], ""),
    ]


PARTS: dict[str, Callable[[Sets, Measuring], list[Measure]]] = {
    part.__name__: part
    for part in (references, decoder, control, fps, prior, interpolation, sr_spacetime, sr_spatial, final, distances)
}


def _verdicts(part: str, rows: Rows, measure: Measuring) -> list[Measure]:
    return [measure(part, name, rows.mean(name), rows) for name in VERDICTS]


def _gains(part: str, rows: Rows, measure: Measuring, suffix: str = "") -> list[Measure]:
    return [
        measure(part, f"psnr{suffix}", rows.mean("psnr"), rows, "dB"),
        measure(part, f"baseline_psnr{suffix}", rows.mean("baseline_psnr"), rows, "dB"),
        measure(part, f"gain{suffix}", _gain(rows), rows, "dB"),
    ]


def _gain(rows: Rows) -> float:
    return rows.mean("psnr") - rows.mean("baseline_psnr")


def _difference(rows: Rows, other: Rows) -> float:
    return rows.mean("frame_difference") / other.mean("frame_difference")


def _over_error(distance: Estimate) -> float:
    """Return by how many of its errors a distance differs from zero."""
    return abs(distance.value) / distance.error


def _gap(found: Mapping[str, Mapping[str, Estimate]], metric: str) -> float:
    """Return by how many errors the untrained control lies above the trained decoder."""
    control, decoder = found["control"][metric], found["decoder"][metric]
    return (control.value - decoder.value) / math.hypot(control.error, decoder.error)
