"""Which files a user's ``source`` names: a folder, or a csv or jsonl list; and their train/val split."""

import csv
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_mav.errors import DataError
from lightning_mav.seeding import hashed_seed

logger = logging.getLogger(__name__)

VAL_SHARE = 50  # one file in 50 is held out
MAX_VAL = 1000


@dataclass(frozen=True)
class Entry:
    """A file, its name within the source (which decides its split), and its caption where a list gives one."""

    path: str
    name: str
    caption: str | None = None


def list_files(source: str, extensions: Sequence[str], split: Literal["train", "val"]) -> list[Entry]:
    """Return one split of the files that ``source`` names, in a fixed order.

    Args:
        source: a folder, searched with its sub-folders, or a .csv or .jsonl list with the column ``path`` (relative to
            the list's folder, or absolute) and, for captions, ``caption`` or ``text``.
        extensions: lower-case extensions that a folder is searched for.
        split: "val" is one file in 50, at least one and at most 1000, chosen by a hash of its name in the source.

    Raises:
        DataError: nothing is there, nothing fits, or a row of the list is wrong.
    """
    path = Path(source)
    if path.is_dir():
        entries = list(_search(path, extensions))
        wanted = f"files ending in {', '.join(extensions)}"
    elif path.suffix.lower() in (".csv", ".jsonl"):
        entries = [_entry(path, row, number) for number, row in _rows(path)]
        wanted = "rows"
    else:
        raise DataError(f"{source}: no such folder, and not a .csv or .jsonl list; set data.source to one of them")
    if not entries:
        raise DataError(f"{source}: empty, expected {wanted}; set data.source to a folder or list that has some")
    return _split(entries, split)


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


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of a csv or jsonl file."""
    require_regular_file(str(path))
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


def _entry(path: Path, row: Any, number: int) -> Entry:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
        raise DataError(f"{path}, line {number}: no file in column 'path'; give each row a path")
    caption = row.get("caption", row.get("text"))
    if ("caption" in row or "text" in row) and not isinstance(caption, str):
        raise DataError(f"{path}, line {number}: the caption is {caption!r}, not a text; correct or remove this row")
    if caption is not None:
        _check_caption(caption, f"{path}, line {number}")
    return Entry(str(path.parent / row["path"]), row["path"], caption)


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
    return caption


def _check_caption(caption: str, where: str) -> None:
    if "\0" in caption:
        raise DataError(f"{where}: the caption holds a NUL character; remove it")
    if not caption.strip():
        logger.warning("%s: empty caption; it trains as the null text", where)


def _split(entries: list[Entry], split: Literal["train", "val"]) -> list[Entry]:
    names = sorted({entry.name for entry in entries}, key=lambda name: (hashed_seed("val", name), name))
    if len(names) == 1:
        return entries
    held_out = set(names[: min(max(1, len(names) // VAL_SHARE), MAX_VAL)])
    return [entry for entry in entries if (entry.name in held_out) == (split == "val")]
