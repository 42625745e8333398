"""One self-contained page: what was measured beside its bars, and the videos it was measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from eval.curves import Training, draw, read_trainings
from eval.page import details, picture, write_page
from eval.store import Row

Results = dict[str, Any]


@dataclass(frozen=True)
class VideoSet:
    """The rows of a set of videos, and the folder of the pictures of the first ones."""

    folder: Path
    rows: list[Row]


INTRODUCTION = (
    "Captions name a shape and its colours and never a motion; videos have no captions. A video made from a held-out "
    "caption should show the right thing moving as its kind moves. An analytic judge, nothing trained, says whether "
    "it does."
)
LABELS = {
    "text_faithful": "text faithful (shape and colour)",
    "background_right": "background right",
    "dominant_motion": "dominant motion right",
    "strict_law": "strict motion law",
    "difference_to_real": "frame difference / real videos",
    "difference_to_control": "frame difference / control",
    "dominant_gap": "dominant motion below the trained decoder",
    "dominant_drop": "dominant motion lost since the decoder",
    "ratio": "frame difference / that at 16 fps",
    "cosine": "cosine to real stills",
    "text_cosine": "the same for the text embedding",
    "cosine_gain": "gain over the text embedding",
    "retrieval": "retrieves its caption among 96",
    "psnr": "PSNR",
    "baseline_psnr": "PSNR of the baseline",
    "gain": "gain over the baseline",
    "lengths_right": "16 frames become 31, 46, 61",
    "given_frames_error": "largest error of given frames",
    "input_channels": "input channels per pixel",
    "fvd": "FVD from real videos, without bias",
    "clip_fid": "CLIP-FID of the middle frame, without bias",
    "inception_score": "Inception Score, 24 classes",
    "clipsim": "CLIPSIM",
    "fvd_over_error": "that FVD over its error",
    "fvd_gap_over_error": "FVD above the trained decoder's, in errors",
}
PARTS = {
    "decoder": ("Decoder at 16 fps", "Held-out captions, 16 frames."),
    "control": ("Control: inflated, never shown a video", "Same prompts and seeds: faithful to the text, no motion."),
    "fps": ("Decoder at 6 fps", "Same prompts and seeds; from these, final videos are made."),
    "prior": ("Prior", "From held-out captions to image embeddings."),
    "interpolation": ("Interpolation", "Missing frames of real held-out videos, against linear blending; skip 5."),
    "sr_spacetime": ("Space-time super-resolution", "Real held-out videos, against bicubic enlargement."),
    "sr_spatial": ("Spatial super-resolution", "Real held-out videos, against bicubic enlargement."),
    "final": ("Final videos", "Decoder at 6 fps, interpolation to 30 fps, both super-resolutions: 76 frames."),
    "real": ("The judge on real videos", "They must pass. Distances are from other real videos."),
    "still": ("The judge on still videos", "They must fail."),
    "jittered": ("The judge on jittered videos", "Right places in a wrong order: they must fail."),
    "wrong_motion": ("The judge on wrong motion", "Another shape's motion: they must fail."),
}
STAGES = {
    "decoder": "decoder, 16 frames at 6 fps",
    "interpolation": "interpolation, 76 frames at 30 fps",
    "sr_spacetime": "space-time super-resolution",
    "sr_spatial": "spatial super-resolution",
}

COMPARED = {
    "decoder_16fps": "decoder, 16 fps",
    "decoder_6fps": "decoder, 6 fps",
    "control": "control, 16 fps",
    "real_16fps": "real, 16 fps",
    "jittered_16fps": "jittered",
    "wrong_motion_16fps": "wrong motion",
}


def write_report(results: Results, out: Path, runs: Path) -> Path:
    """Write ``report.html``.

    Args:
        results: What ``results.as_json`` returned.
        out: Folder of the page and of the pictures named in ``results``.
        runs: Folder of the training runs, whose logs are drawn.
    """
    sets = {name: VideoSet(out / one["folder"], one["rows"]) for name, one in results["sets"].items()}
    trainings = read_trainings(runs)
    sections = {
        "Final videos": _gallery(sets.get("final"), 192),
        "One prompt through the stages": _cascade(sets.get("cascade")),
        "Trained, untrained, real": _comparison(sets),
        "Measures": _tables(results["measures"]),
        "Training": _training(trainings),
        "How it was made": details(results["versions"], results["settings"]),
    }
    system, finished = str(results["settings"]["system"]["model"]), results["finished"]
    title, tally = "Text becomes video: moving shapes", _tally(results["measures"])
    return write_page(out / "report.html", title, system, finished, INTRODUCTION, tally, sections)


def _tally(measures: Sequence[Row]) -> str:
    judged = [m for m in measures if m["passed"] is not None]
    below = len(judged) - sum(m["passed"] for m in judged)
    state = "good" if not below else "poor"
    rest = "" if not below else f", {below} below"
    return f'<span class="{state}">{len(judged) - below} of {len(judged)} bars cleared{rest}</span>'


def _gallery(videos: VideoSet | None, width: int) -> str:
    if videos is None:
        return ""
    cards = [_card(videos.folder, i, row, width) for i, row in enumerate(videos.rows)]
    return f'<div class="grid">{"".join(cards)}</div>'


def _card(folder: Path, i: int, row: Row, width: int) -> str:
    path = folder / f"{i:06d}.webp"
    if not path.exists():
        return ""
    marks = _mark(row["text_faithful"], "text") + _mark(row["dominant_motion"], "motion")
    return f"<figure>{picture(path, width)}<figcaption>{escape(row['caption'])}<br>{marks}</figcaption></figure>"


def _mark(right: bool, what: str) -> str:
    return f'<span class="{"good" if right else "poor"}">{"✓" if right else "✗"} {what}</span> '


def _cascade(videos: VideoSet | None) -> str:
    if videos is None:
        return ""
    folder, caption = videos.folder, escape(videos.rows[0]["caption"])
    rows = [
        f"<tr><td>{picture(folder / f'{stage}.webp', 128)}</td><td>{picture(folder / f'{stage}.png', 768)}</td>"
        f"<td>{label}</td></tr>"
        for stage, label in STAGES.items()
    ]
    return f'<p>“{caption}”, playing and as evenly spaced frames.</p><table class="strips">{"".join(rows)}</table>'


def _comparison(sets: Mapping[str, VideoSet]) -> str:
    """Show the same prompts by the decoder, the control and real videos, side by side."""
    found = [(label, _starting(sets, name)) for name, label in COMPARED.items()]
    columns = [(label, videos) for label, videos in found if videos]
    if not columns:
        return ""
    head = "".join(f"<th>{label}</th>" for label, _ in columns)
    rows = [_compared(i, [videos for _, videos in columns]) for i in range(0, 16, 2)]
    return f'<div class="scroll"><table class="compare"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _compared(i: int, columns: Sequence[VideoSet]) -> str:
    if i >= len(columns[0].rows):
        return ""
    pictures = [_optional(videos.folder / f"{i:06d}.webp") for videos in columns]
    if not any(pictures):
        return ""
    cells = "".join(f"<td>{picture}</td>" for picture in pictures)
    return f"<tr><th>{escape(columns[0].rows[i]['caption'])}</th>{cells}</tr>"


def _starting(sets: Mapping[str, VideoSet], name: str) -> VideoSet | None:
    """Return the first set whose name starts so; names carry frame rate and size."""
    return next((videos for key, videos in sets.items() if key.startswith(name)), None)


def _optional(path: Path) -> str:
    return picture(path, 112) if path.exists() else ""


def _tables(measures: Sequence[Row]) -> str:
    parts = [part for part in PARTS if any(m["part"] == part for m in measures)]
    return f'<div class="parts">{"".join(_table(part, measures) for part in parts)}</div>'


def _table(part: str, measures: Sequence[Row]) -> str:
    own = [m for m in measures if m["part"] == part]
    title, words = PARTS[part]
    cost = f"n&nbsp;=&nbsp;{max(m['n'] for m in own)}, {_time(max(m['seconds'] for m in own))}"
    lines = "".join(_line(measure) for measure in own)
    return f'<div class="part"><h3>{title}</h3><p>{words} {cost}.</p><table>{lines}</table></div>'


def _line(measure: Row) -> str:
    passed, bar = measure["passed"], measure["bar"]
    state = {None: "", True: "good", False: "poor"}[passed]
    sign = {None: "", True: " ✓", False: " ✗"}[passed]
    wanted = f"{_symbol(bar)} {_value(float(bar.split()[-1]), measure['unit'])}" if bar else ""
    value = _value(measure["value"], measure["unit"]) + _error(measure["error"])
    return (
        f'<tr><td>{_label(measure["name"])}</td><td class="value {state}">{value}{sign}</td>'
        f'<td class="soft">{wanted}</td></tr>'
    )


def _label(name: str) -> str:
    """Return a measure's name in words; a suffix such as _16fps or _skip2 stays behind it."""
    stem, _, suffix = name.rpartition("_")
    if name not in LABELS and stem in LABELS:
        return f"{LABELS[stem]}, {suffix.replace('fps', ' fps').replace('skip', 'skip ')}"
    return LABELS.get(name, name.replace("_", " "))


def _symbol(bar: str) -> str:
    return escape({">=": "≥", "<=": "≤", "==": "="}.get(bar.split()[0], bar.split()[0]))


def _value(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{100 * value:.1f} points"
    return {"dB": f"{value:.2f} dB", "ratio": f"{value:.2f} x"}.get(unit, f"{value:.3g}")


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.2g}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _training(trainings: Sequence[Training]) -> str:
    if not trainings:
        return ""
    total = sum(training.seconds for training in trainings) or 1.0
    bars = "".join(f'<div style="flex-grow:{max(t.seconds, 0.001):.3f}" title="{t.name}"></div>' for t in trainings)
    shares = " · ".join(f"{t.name} {_time(t.seconds)} ({100 * t.seconds / total:.0f} %)" for t in trainings)
    key = '<span class="swatch" style="background:var(--train)"></span>training loss'
    key += '<span class="swatch" style="background:var(--val)"></span>held-out loss, averaged weights'
    figures = "".join(
        f"<figure><figcaption><b>{t.name}</b><span>{_time(t.seconds)}</span></figcaption>{draw(t)}</figure>"
        for t in trainings
    )
    return (
        f'<div class="shares">{bars}</div><p class="legend">{_time(total)} in all: {shares}</p>'
        f'<p class="legend">{key}</p><div class="curves">{figures}</div>'
    )
