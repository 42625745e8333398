"""Generated videos as files: names, a contact sheet beside each, and a json that says how to make it again."""

import json
import platform
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.transforms import downsample
from lightning_mav.errors import ConfigError, DataError, MachineError
from lightning_mav.media import check_format, write_sheet, write_video

EMBEDDING_SUFFIX = ".safetensors"
SLUG_LENGTH = 40  # characters; at four bytes each, names stay within the 255 bytes of file systems


def asked(prompt: str | None, prompts: str | None) -> list[str]:
    """Return the one prompt, or those of a file.

    Raises:
        ConfigError: Both or neither are given.
        DataError: See ``read_prompts``.
    """
    if (prompt is None) == (prompts is None):
        raise ConfigError("give either --prompt TEXT or --prompts FILE")
    return [prompt] if prompt is not None else read_prompts(str(prompts))


def read_prompts(path: str | Path) -> list[str]:
    """Return the lines of a text file, without empty ones.

    Raises:
        DataError: No readable text, or no prompt in it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path}: cannot be read as text ({reason}); give a UTF-8 file, one prompt per line") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path}: holds no prompt; write one per line")
    return prompts


def slug(text: str) -> str:
    """Return a short piece of ``text`` that is safe in a file name: letters and digits of any script, and dashes."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
    return "-".join(words)[:SLUG_LENGTH].strip("-")


def numbered(folder: str | Path, prompts: Sequence[str], suffix: str) -> list[Path]:
    """Return a file in ``folder`` for each prompt: its number, its slug, ``suffix``."""
    digits = max(3, len(str(len(prompts) - 1)))
    stems = [f"{i:0{digits}d}-{slug(prompt)}".rstrip("-") for i, prompt in enumerate(prompts)]
    return [Path(folder) / f"{stem}{suffix}" for stem in stems]


@dataclass(frozen=True)
class Results:
    """What a command makes, as files.

    Args:
        verb: The command, for the record.
        fps: Frames per second of the videos.
        output_size: Height and width that frames are resized to; None leaves them.
    """

    verb: str
    fps: float
    output_size: int | None = None

    def check(self, files: Sequence[Path], embeddings: bool = False) -> None:
        """Find out, before any work is done, whether ``files``, all in one folder, can be written.

        Raises:
            ConfigError: A suffix that does not fit what is made.
            MachineError: The folder cannot be written.
        """
        path = files[0]
        if path.is_dir():
            raise ConfigError(f"out: {path} is a folder; name a file in it, for example {path}/video.mp4")
        if not embeddings:
            check_format(path, self.fps)
        elif path.suffix != EMBEDDING_SUFFIX:
            raise ConfigError(f"out: {path}: the prior makes an embedding; end the name in {EMBEDDING_SUFFIX}")
        prepare_folder(path.parent)

    def write(self, made: Tensor, path: Path, settings: Mapping[str, Any]) -> str:
        """Write a video (3, F, H, W) in [-1, 1] with its contact sheet, or an embedding (D,), and the record.

        Args:
            made: The video or embedding.
            path: Where it goes; sheet and record get the same name with .png and .json.
            settings: The options that make it again.

        Returns:
            A line that says where it lies.
        """
        if made.ndim == 1:
            write_atomically(path, lambda file: file.write(save({"image_embedding": made.contiguous()})))
        else:
            made = downsample(made, self.output_size) if self.output_size else made
            write_video(made, path, self.fps)
            write_sheet([made], path.with_suffix(".png"))
        self._record(path.with_suffix(".json"), settings)
        return f"{path}  {' x '.join(str(n) for n in made.shape)}"

    def _record(self, path: Path, settings: Mapping[str, Any]) -> None:
        given = {name: value for name, value in settings.items() if value is not None}
        record = {"command": command_line(self.verb, given), "settings": given, "versions": versions()}
        text = json.dumps(record, indent=2, ensure_ascii=False)
        write_atomically(path, lambda file: file.write(text.encode()))


def prepare_folder(folder: Path) -> None:
    """Make ``folder`` and find out whether files can be written there.

    Raises:
        MachineError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MachineError(f"out: cannot write into {folder} ({error.strerror}); choose another folder") from error


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    packages = {name: version(name) for name in ("torch", "av", "pillow")}
    try:
        ours = version("lightning_mav")
    except PackageNotFoundError:
        ours = "a checkout"
    return {"lightning_mav": ours, "python": platform.python_version(), **packages}


def command_line(verb: str, settings: Mapping[str, Any]) -> str:
    """Return the command that runs ``verb`` with ``settings``."""
    words = ["python", "-m", "lightning_mav", verb]
    for name, value in settings.items():
        words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return shlex.join(words)
