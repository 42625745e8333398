"""Checking a source or its manifest, piece by piece, so that a killed run can go on where it was."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_mav.data.candidates import file_state, units_of
from lightning_mav.data.crew import Crew, in_order
from lightning_mav.data.examine import examine, examine_again
from lightning_mav.data.index import fault_of, part_of, read_rows, write_rows
from lightning_mav.data.manifest import Sample, Samples, manifest_of, read_manifest
from lightning_mav.data.shards import Bad

AT_ONCE = 1000  # samples of a manifest that are checked before the next lines are read


@dataclass(frozen=True)
class Piece:
    """Some samples of a manifest, checked as a unit."""

    samples: Samples
    start: int

    @property
    def state(self) -> tuple[str, ...]:
        """What changes when one of its lines or files does."""
        known, _ = self.candidates()
        return (*map(repr, known), *(file_state(file) for file in sorted({one.media.file for one in known})))

    def candidates(self) -> tuple[list[Sample], list[Bad]]:
        """Return its samples; none is refused."""
        end = min(self.start + AT_ONCE, len(self.samples))
        return [self.samples[i] for i in range(self.start, end)], []


def check(
    source: str, num_workers: int, deadline: float, min_frames: int, notes: Path | None = None
) -> Iterator[Bad | None]:
    """Decode everything in a source, and compare it with the manifest if the source has one.

    Args:
        source: A manifest, a folder that holds one, or what ``index.build`` takes.
        num_workers: Processes that decode.
        deadline: Seconds after which the decoding of one image or video is given up.
        min_frames: Videos with fewer are bad, where there is no manifest.
        notes: Folder for what has been found, so that a killed run goes on; removed at the end.

    Yields:
        For each sample, what is wrong with it, or None.
    """
    manifest = manifest_of(source)
    known = read_manifest(manifest) if manifest else None
    units: Sequence[Any] = units_of(source) if known is None else _pieces(known)
    work, least = (examine, min_frames) if known is None else (examine_again, 0)
    crew: Crew[Any, Sample] = Crew(work, num_workers, deadline)
    with crew, tqdm(total=None if known is None else len(known), desc="checking") as bar:
        for number, unit in enumerate(units):
            part = notes and part_of(notes, number, unit.state, least)
            if part and part.exists():
                verdicts = [Bad(**row) if row else None for row in read_rows([part])]
                bar.update(len(verdicts))
            else:
                verdicts = list(_verdicts(unit, crew, least, bar))
                if part:
                    write_rows(part, [vars(bad) if bad else {} for bad in verdicts])
            yield from verdicts
    if notes:
        _remove(notes)


def _pieces(samples: Samples) -> list[Piece]:
    return [Piece(samples, start) for start in range(0, len(samples), AT_ONCE)]


def _verdicts(unit: Any, crew: Crew[Any, Sample], min_frames: int, bar: Any) -> Iterator[Bad | None]:
    tasks, refused = unit.candidates()
    yield from refused
    for task, outcome in zip(tasks, in_order(crew.map(tasks)), strict=True):
        bar.update()
        yield fault_of(outcome, task.name, min_frames)


def _remove(notes: Path) -> None:
    """Remove what was noted, and the folder if nothing else is in it."""
    for part in notes.glob(f"{'[0-9]' * 6}-{'?' * 16}.jsonl"):
        part.unlink()
    with suppress(OSError):
        notes.rmdir()
