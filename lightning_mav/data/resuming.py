"""What a folder that a command fills is for, so that a killed run can only go on with the same."""

import json
from pathlib import Path
from typing import Any

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.errors import DataError


def claim(record_file: Path, record: dict[str, Any], other: str) -> None:
    """Write down what a folder will hold, or compare it with what was written.

    Args:
        record_file: Where in the folder.
        record: Everything that decides the bytes of what will be made.
        other: What the folder holds if the records differ, for the error.

    Raises:
        DataError: They differ, or the record is damaged.
    """
    if not record_file.exists():
        write_atomically(record_file, lambda file: file.write(json.dumps(record).encode()))
    elif read_claim(record_file) != record:
        raise DataError(f"{record_file.parent}: holds {other}; choose an empty folder")


def read_claim(record_file: Path) -> Any:
    """Return what was written down.

    Raises:
        DataError: It is damaged.
    """
    try:
        return json.loads(record_file.read_text())
    except ValueError as error:
        raise DataError(f"{record_file}: damaged; run the command again into an empty folder") from error
