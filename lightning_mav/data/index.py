"""Building the manifest of a source, unit by unit, so that a killed run goes on where it was."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.candidates import Candidate, Unit, reason, units_of
from lightning_mav.data.crew import Crew
from lightning_mav.data.examine import examine
from lightning_mav.data.manifest import Sample, head_line, json_line
from lightning_mav.data.shards import Bad
from lightning_mav.errors import DataError

Row = dict[str, Any]


def build(source: str, out: Path, num_workers: int, deadline: float, min_frames: int) -> Counter[str]:
    """Write the manifest of a source, and ``OUT.bad.jsonl`` with what is left out and why.

    Args:
        source: See ``candidates.units_of``.
        out: The manifest to write.
        num_workers: Processes that decode.
        deadline: Seconds after which the decoding of one image or video is given up.
        min_frames: Videos with fewer are left out.

    Returns:
        How many rows are "image", "video", "bad", and "uncaptioned" images.

    Raises:
        DataError: Nothing in the source can be used.
    """
    units, parts = units_of(source), Path(f"{out}.parts")
    made = [part_of(parts, number, unit.state, min_frames) for number, unit in enumerate(units)]
    with Crew(examine, num_workers, deadline) as crew, _bar(units) as bar:
        for unit, part in zip(units, made, strict=True):
            if part.exists():
                bar.update(unit.size)
            else:
                rows = _rows(unit, out.parent, crew, min_frames, bar)
                write_rows(part, rows)
    counts = Counter(kind for row in read_rows(made) for kind in _counted(row))
    _join(made, out, counts)
    shutil.rmtree(parts)
    return counts


def _rows(unit: Unit, folder: Path, crew: Crew[Candidate, Sample], min_frames: int, bar: Any) -> list[Row]:
    """Return what the manifest will hold of a unit, and what it will not."""
    found, bad = unit.candidates()
    rows: list[Row] = [{} for _ in found]
    for number, outcome in crew.map(found):
        fault = fault_of(outcome, found[number].name, min_frames)
        rows[number] = vars(fault) if fault else outcome.row(folder)  # type: ignore[union-attr]
        bar.update(found[number].media.size)
    return rows + [vars(one) for one in bad]


def part_of(folder: Path, number: int, state: tuple[str, ...], min_frames: int) -> Path:
    """Return the file for what is found in a unit; its name changes with the unit's files."""
    digest = hashlib.sha256(repr((state, min_frames)).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"{number:06d}-{digest[:16]}.jsonl"


def write_rows(part: Path, rows: Iterable[Row]) -> None:
    """Write what was found in a unit."""
    write_atomically(part, lambda file: file.writelines(map(json_line, rows)))


def read_rows(parts: Iterable[Path]) -> Iterator[Row]:
    """Yield what was found in units."""
    for part in parts:
        with part.open("rb") as file:
            yield from map(json.loads, file)


def fault_of(outcome: Sample | DataError, name: str, min_frames: int) -> Bad | None:
    """Return why a sample cannot be used, or None."""
    if isinstance(outcome, DataError):
        return Bad(name, reason(outcome, name))
    if outcome.frames is not None and outcome.frames < min_frames:
        return Bad(name, f"{outcome.frames} frames, fewer than the {min_frames} of --min_frames")
    return None


def _join(parts: Iterable[Path], out: Path, counts: Counter[str]) -> None:
    """Write the list of bad samples, then the manifest, whose presence says that all is done."""
    listed = Path(f"{out}.bad.jsonl")
    listed.unlink(missing_ok=True)
    if counts["bad"]:
        bad = (json_line(row) for row in read_rows(parts) if "reason" in row)
        write_atomically(listed, lambda file: file.writelines(bad))
    num = counts["image"] + counts["video"]
    if not num:
        raise DataError(f"{out}: not written, as no sample can be used; {listed} says why")
    good = (json_line(row) for row in read_rows(parts) if "reason" not in row)
    write_atomically(out, lambda file: file.writelines(chain([head_line(num)], good)))


def _counted(row: Row) -> list[str]:
    if "reason" in row:
        return ["bad"]
    return [row["kind"]] + ["uncaptioned"] * (row["kind"] == "image" and not row.get("caption"))


def _bar(units: Sequence[Unit]) -> Any:
    return tqdm(total=sum(unit.size for unit in units), desc="decoding", unit="B", unit_scale=True)
