"""The page of a zero-shot benchmark: each number with what it rests on, beside those published numbers it may meet."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from eval.page import details, picture, table, write_page
from eval.published import Published, incomparable, published

Row = dict[str, Any]
GALLERY = 4  # videos of each quantile
QUANTILES = {"lowest": 0.0, "lower quarter": 0.25, "median": 0.5, "upper quarter": 0.75, "highest": 1.0}
WIDTH, HEIGHT = 640, 180  # of a curve


def write_zero_shot_report(results: Row, run: Row, gallery: Sequence[Row], out: Path) -> Path:
    """Write ``report.html``.

    Args:
        results: What ``ZeroShot.evaluate`` found.
        run: System, settings, time and versions of this run.
        gallery: Videos that can be shown.
        out: Folder of the page.
    """
    protocol, scores = results["protocol"], results["scores"]
    sections = {
        "Numbers": _numbers(scores),
        "Beside published ones": _beside(results),
        "Inception Score, by convention": _conventions(results["conventions"]),
        "How the distance depends on the number of videos": _curves(scores),
        "Videos, by CLIPSIM": _gallery(gallery),
        "Protocol": _protocol(protocol),
        "Skipped": _skipped(results["skipped"]),
        "How it was made": details(run["versions"], run["settings"]),
    }
    prompts = results["prompts"]
    introduction = (
        f"Protocol <b>{escape(protocol['name'])}</b> ({escape(protocol['source'])}): {prompts['n']:,} prompts, "
        f"list sha256 {prompts['sha256'][:12]}."
    )
    title = {"msrvtt": "MSR-VTT", "ucf101": "UCF-101"}[results["benchmark"]] + ", zero-shot"
    return write_page(out / "report.html", title, run["system"], run["finished"], introduction, "", sections)


def _numbers(scores: Mapping[str, Row]) -> str:
    head = ("metric", "value", "without bias", "n", "real", "line in 1/n ends at", "network")
    return table(head, [_number(name, one) for name, one in scores.items()])


def _number(name: str, one: Row) -> list[str]:
    corrected = "" if one["corrected"] is None else f"{one['corrected']:.4g} ± {one['corrected_error']:.2g}"
    end = "" if one["extrapolated"] is None else f"{one['extrapolated']:.4g}"
    real = f"{one['num_real']:,}" if one["num_real"] else ""
    extractor = f"{escape(one['network'])} <span class='soft'>{one['fingerprint'][:8]}</span>"
    return [escape(name), f"{one['value']:.4g} ± {one['error']:.2g}", corrected, f"{one['n']:,}", real, end, extractor]


def _beside(results: Row) -> str:
    """Return every published number of the measured columns, and why ours must not stand beside it."""
    parts = []
    for name, one in results["scores"].items():
        rows = [row for row in published(results["benchmark"]) if row.metric == one["spec"]["column"]]
        lines = [_published(row, results, one["n"]) for row in rows]
        ours = ["this run", f"{one['value']:.4g} ± {one['error']:.2g}", "", f"n = {one['n']:,}", "", ""]
        head = ("system", "value", "zero-shot", "protocol", "comparable with this run", "source")
        parts.append(f"<h3>{escape(name)}</h3>" + table(head, [ours, *lines]))
    return "".join(parts)


def _published(row: Published, results: Row, n: int) -> list[str]:
    reason = _reason(row, results, n)
    deviation = "" if row.std is None else f" ± {row.std:g}"
    shot = {True: "yes", False: "no", None: ""}[row.zero_shot]
    comparable = '<span class="good">yes</span>' if reason is None else f"no: {escape(reason)}"
    source = escape(row.source) + ("" if row.read == "primary" else " (as quoted by others)")
    return [escape(row.system), f"{row.value:g}{deviation}", shot, row.protocol or "", comparable, source]


def _reason(row: Published, results: Row, n: int) -> str | None:
    if results["changes"]:
        return f"the protocol was changed: {', '.join(results['changes'])}"
    if results["skipped"]:
        return f"{len(results['skipped'])} videos were skipped"
    return incomparable(row, results["protocol"]["name"], n)


def _conventions(found: Mapping[str, Row | None]) -> str:
    rows = [
        [escape(name), "too few videos" if one is None else f"{one['value']:.4g} ± {one['error']:.2g}", str(n)]
        for name, one in found.items()
        for n in [f"{one['n']:,}" if one else ""]
    ]
    return table(("convention", "value", "n"), rows) if rows else ""


def _curves(scores: Mapping[str, Row]) -> str:
    drawn = [
        f"<figure><figcaption><b>{escape(k)}</b></figcaption>{_curve(v)}</figure>"
        for k, v in scores.items()
        if v["curve"]
    ]
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _curve(one: Row) -> str:
    """Draw a distance over 1/n with the straight line to 1/n = 0."""
    points = [(1 / n, value) for n, value in one["curve"]]
    right, top = max(x for x, _ in points), max([y for _, y in points] + [one["extrapolated"] or 0, 1e-9])

    def place(x: float, y: float) -> str:
        return f"{40 + x / right * (WIDTH - 60):.1f},{HEIGHT - 20 - max(y, 0) / top * (HEIGHT - 40):.1f}"

    line = " ".join(place(x, y) for x, y in points)
    end = f"{place(0, one['extrapolated'])} {place(right, points[0][1])}" if one["extrapolated"] is not None else ""
    labels = "".join(
        f'<text x="{place(x, y).split(",")[0]}" y="{HEIGHT - 6}">n = {n:,}</text>'
        for (n, y), (x, _) in zip(one["curve"], points, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"><line x1="40" y1="{HEIGHT - 20}" x2="{WIDTH - 20}" y2="{HEIGHT - 20}"/>'
        f'<polyline class="train" points="{line}"/><polyline class="val" points="{end}"/>{labels}'
        f'<text x="0" y="14">{top:.4g}</text><text x="0" y="{HEIGHT - 22}">0</text></svg>'
    )


def _gallery(rows: Sequence[Row]) -> str:
    """Show the kept videos around five quantiles of their CLIPSIM."""
    ordered = sorted(rows, key=lambda row: row["similarity"] or 0.0)
    if not ordered:
        return ""
    parts = []
    for name, share in QUANTILES.items():
        middle = share * (len(ordered) - GALLERY)
        chosen = ordered[max(0, round(middle)) : max(0, round(middle)) + GALLERY]
        parts.append(f'<h3>{name}</h3><div class="grid">{"".join(_card(row) for row in chosen)}</div>')
    return "".join(parts)


def _card(row: Row) -> str:
    cosine = "" if row["similarity"] is None else f"<br>CLIPSIM {row['similarity']:.3f}"
    return f"<figure>{picture(row['picture'], 220)}<figcaption>{escape(row['text'])}{cosine}</figcaption></figure>"


def _protocol(protocol: Row) -> str:
    shown = {key: value for key, value in protocol.items() if key not in ("metrics", "unstated", "name", "source")}
    rows = [[escape(key.replace("_", " ")), escape(str(value))] for key, value in shown.items()]
    left = "".join(f"<li>{escape(text)}</li>" for text in protocol["unstated"])
    return table(("setting", "value"), rows) + (f"<h3>What the paper leaves open</h3><ul>{left}</ul>" if left else "")


def _skipped(rows: Sequence[Row]) -> str:
    return table(("video", "why"), [[escape(row["id"]), escape(row["error"])] for row in rows]) if rows else ""
