"""Which files a user's ``source`` names: a folder, or a csv, jsonl or parquet list; and their train/val split."""

import csv
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_mav.captions import fault_of
from lightning_mav.errors import DataError, MachineError
from lightning_mav.seeding import hashed_seed

logger = logging.getLogger(__name__)

VAL_SHARE = 50  # one file in 50 is held out
MAX_VAL = 1000
MAX_PIXELS = 100_000_000  # an image or a frame this large takes 300 MB
PATH_COLUMNS = ("path", "file_name", "video")  # ours and Open-Sora's, Hugging Face's, finetrainers'
CAPTION_COLUMNS = ("caption", "text", "name")  # the last is WebVid's
LISTS = (".csv", ".jsonl", ".parquet")

Split = Literal["train", "val"]


@dataclass(frozen=True)
class Entry:
    """A file, its name within the source (which decides its split), and its caption where a list gives one."""

    path: str
    name: str
    caption: str | None = None


def list_files(source: str, extensions: Sequence[str], split: Split) -> list[Entry]:
    """Return one split of the files that ``source`` names, in a fixed order.

    Args:
        source: See ``list_entries``.
        extensions: lower-case extensions that a folder is searched for.
        split: "val" is one file in 50, at least one and at most 1000, chosen by a hash of its name in the source.

    Raises:
        DataError: nothing is there, nothing fits, or a row of the list is wrong.
    """
    entries = list_entries(source, extensions)
    chosen = in_split(np.array([name_hash(entry.name) for entry in entries]), split)
    return [entry for entry, keep in zip(entries, chosen, strict=True) if keep]


def list_entries(source: str, extensions: Sequence[str]) -> list[Entry]:
    """Return the files that ``source`` names, in a fixed order.

    Args:
        source: a folder, searched with its sub-folders, or a .csv, .jsonl or .parquet list with the column ``path``
            (relative to the list's folder, or absolute) and, for captions, ``caption`` or ``text``; or with the columns
            of WebVid, ``videoid``, ``page_dir`` and ``name``.
        extensions: lower-case extensions that a folder is searched for.

    Raises:
        DataError: nothing is there, nothing fits, or a row of the list is wrong.
        MachineError: a parquet list where pyarrow is not installed.
    """
    _require_local(source, source)
    path = Path(source)
    if path.is_dir():
        entries = list(_search(path, extensions))
        wanted = f"files ending in {', '.join(extensions)}"
        if not entries and next(_search(path, (".tar",)), None):
            raise DataError(f"{source}: holds tar shards; run data index --source {source} --out {path}/manifest.jsonl")
    elif path.suffix.lower() in LISTS:
        entries = _listed(path)
        wanted = "rows"
    else:
        raise DataError(f"{source}: no such folder, and not a .csv or .jsonl list; set data.source to one of them")
    if not entries:
        raise DataError(f"{source}: empty, expected {wanted}; set data.source to a folder or list that has some")
    return entries


def require_regular_file(path: str) -> None:
    """Raise DataError unless ``path`` is a regular file with something in it; a pipe would make any reader wait."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; correct the list or the link") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file; remove it from the data")
    if status.st_size == 0:
        raise DataError(f"{path}: empty file; remove it or fetch it again")


def _search(folder: Path, extensions: Sequence[str]) -> Iterator[Entry]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in extensions:
                path = os.path.join(parent, file)
                yield Entry(path, os.path.relpath(path, folder))


def _require_local(path: str, where: str) -> None:
    if re.match(r"\w+://|pipe:", path):
        raise DataError(f"{where}: '{path}' is remote or a command; download the data and name the files")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of a list; a parquet file's rows count from 1."""
    require_regular_file(str(path))
    if path.suffix.lower() == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
        return
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    number = reader.line_num
                    yield number, row
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, json.loads(line)
    except (csv.Error, ValueError) as error:  # ValueError: bad json, bad utf-8
        raise DataError(f"{path}, near line {number}: {error}; correct this line") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MachineError(f"{path}: parquet needs pyarrow, which is not installed; write the list as csv") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file; fetch it again") from error


def _listed(path: Path) -> list[Entry]:
    rows = {number: _entry(path, row, number) for number, row in _rows(path)}
    if empty := [number for number, one in rows.items() if one.caption is not None and not one.caption.strip()]:
        _report_empty(f"{path}, line {', '.join(map(str, empty[:5]))}", len(empty))
    return list(rows.values())


def _entry(path: Path, row: Any, number: int) -> Entry:
    name = _file_of(row) if isinstance(row, dict) else None
    if not name:
        raise DataError(f"{path}, line {number}: no file in column 'path'; give each row a path")
    _require_local(name, f"{path}, line {number}")
    columns = [column for column in CAPTION_COLUMNS if column in row]
    caption = row[columns[0]] if columns else None
    if columns and not isinstance(caption, str):
        raise DataError(f"{path}, line {number}: the caption is {caption!r}, not a text; correct or remove this row")
    if caption is not None:
        _check_caption(caption, f"{path}, line {number}")
    return Entry(str(path.parent / name), name, caption)


def _file_of(row: dict[str, Any]) -> str | None:
    """Return the file of a row, whose column is called in several ways; WebVid names it by two columns."""
    if row.get("videoid") and row.get("page_dir"):
        return f"{row['page_dir']}/{row['videoid']}.mp4"
    names = [row[column] for column in PATH_COLUMNS if column in row]
    return names[0] if names and isinstance(names[0], str) else None


def read_caption(path: Path) -> str:
    """Return the text of a caption file.

    Raises:
        DataError: it is not UTF-8 text.
    """
    require_regular_file(str(path))
    try:
        caption = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; convert it") from error
    _check_caption(caption, str(path))
    if not caption:
        _report_empty(str(path))
    return caption


def _check_caption(caption: str, where: str) -> None:
    if fault := fault_of(caption):
        raise DataError(f"{where}: the caption {fault}; correct or remove it")


@cache
def _report_empty(where: str, num: int = 1) -> None:
    logger.warning("%s: empty caption (%d in all); it trains as the null text", where, num)


def name_hash(name: str) -> int:
    """Return the hash of a sample's name in its source, which decides its split; 63 bits."""
    return hashed_seed("val", name)


def in_split(hashes: NDArray[np.int64], split: Split) -> NDArray[np.bool_]:
    """Say which samples are in a split, given the hashes of their names, (N,); samples of one name stay together."""
    distinct = np.unique(hashes)
    if len(distinct) == 1:
        return np.ones(len(hashes), bool)
    last = distinct[min(max(1, len(distinct) // VAL_SHARE), MAX_VAL) - 1]
    held_out: NDArray[np.bool_] = hashes <= last
    return held_out if split == "val" else ~held_out
