"""Building the manifest of a source, unit by unit, so that a killed run goes on where it was; and checking one."""

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
from lightning_mav.data.crew import Crew, in_order
from lightning_mav.data.examine import examine, examine_again
from lightning_mav.data.manifest import Sample, head_line, json_line, manifest_of, read_manifest
from lightning_mav.data.shards import Bad
from lightning_mav.errors import DataError

AT_ONCE = 1000  # samples of a manifest that are checked before the next lines are read

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
    made = [parts / f"{number:06d}-{_digest(unit, min_frames)}.jsonl" for number, unit in enumerate(units)]
    with Crew(examine, num_workers, deadline) as crew, _bar(units) as bar:
        for unit, part in zip(units, made, strict=True):
            if part.exists():
                bar.update(unit.size)
            else:
                rows = _rows(unit, out.parent, crew, min_frames, bar)
                write_atomically(part, lambda file, rows=rows: file.writelines(map(json_line, rows)))  # type: ignore[misc]
    counts = Counter(kind for row in _read(made) for kind in _counted(row))
    _join(made, out, counts)
    shutil.rmtree(parts)
    return counts


def _rows(unit: Unit, folder: Path, crew: Crew[Candidate, Sample], min_frames: int, bar: Any) -> list[Row]:
    """Return what the manifest will hold of a unit, and what it will not."""
    found, bad = unit.candidates()
    rows: list[Row] = [{} for _ in found]
    for number, outcome in crew.map(found):
        fault = _fault(outcome, found[number].name, min_frames)
        rows[number] = vars(fault) if fault else outcome.row(folder)  # type: ignore[union-attr]
        bar.update(found[number].media.size)
    return rows + [vars(one) for one in bad]


def _fault(outcome: Sample | DataError, name: str, min_frames: int) -> Bad | None:
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
        bad = (json_line(row) for row in _read(parts) if "reason" in row)
        write_atomically(listed, lambda file: file.writelines(bad))
    num = counts["image"] + counts["video"]
    if not num:
        raise DataError(f"{out}: not written, as no sample can be used; {listed} says why")
    good = (json_line(row) for row in _read(parts) if "reason" not in row)
    write_atomically(out, lambda file: file.writelines(chain([head_line(num)], good)))


def _read(parts: Iterable[Path]) -> Iterator[Row]:
    for part in parts:
        with part.open("rb") as file:
            yield from map(json.loads, file)


def _counted(row: Row) -> list[str]:
    if "reason" in row:
        return ["bad"]
    return [row["kind"]] + ["uncaptioned"] * (row["kind"] == "image" and not row.get("caption"))


def _digest(unit: Unit, min_frames: int) -> str:
    """Return what names a unit's part: it changes with the unit's files."""
    return hashlib.sha256(repr((unit.state, min_frames)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _bar(units: Sequence[Unit]) -> Any:
    return tqdm(total=sum(unit.size for unit in units), desc="decoding", unit="B", unit_scale=True)


def check(source: str, num_workers: int, deadline: float, min_frames: int) -> Iterator[Bad | None]:
    """Decode everything in a source, and compare it with the manifest if the source has one.

    Args:
        source: A manifest, a folder that holds one, or what ``build`` takes.
        num_workers: Processes that decode.
        deadline: Seconds after which the decoding of one image or video is given up.
        min_frames: Videos with fewer are bad, where there is no manifest.

    Yields:
        For each sample, what is wrong with it, or None.
    """
    if manifest := manifest_of(source):
        samples = read_manifest(manifest)
        with Crew(examine_again, num_workers, deadline) as again, tqdm(total=len(samples), desc="checking") as bar:
            for start in range(0, len(samples), AT_ONCE):
                known = [samples[i] for i in range(start, min(start + AT_ONCE, len(samples)))]
                yield from _verdicts(again, known, 0, bar)
        return
    units = units_of(source)
    with Crew(examine, num_workers, deadline) as crew, tqdm(desc="checking") as bar:
        for unit in units:
            found, bad = unit.candidates()
            yield from bad
            yield from _verdicts(crew, found, min_frames, bar)


def _verdicts(crew: Crew[Any, Sample], tasks: Sequence[Any], min_frames: int, bar: Any) -> Iterator[Bad | None]:
    for task, outcome in zip(tasks, in_order(crew.map(tasks)), strict=True):
        bar.update()
        yield _fault(outcome, task.name, min_frames)
