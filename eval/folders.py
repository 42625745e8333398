"""Videos that exist already, as systems: anybody's, named by prompt id, and the real ones of a benchmark."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from eval.prompts import Prompt
from eval.protocols import Window
from eval.reading import read_window
from lightning_mav.data.transforms import dequantise
from lightning_mav.data.videos import EXTENSIONS
from lightning_mav.errors import DataError


class Folder:
    """A folder of videos, one per prompt, called by its id: ``video7010#3.mp4``, ``Archery#0.mp4``.

    Args:
        path: The folder.
        window: Which frames of longer videos are judged.
    """

    def __init__(self, path: str, window: Window = "first") -> None:
        self.path, self.window = Path(path), window
        if not self.path.is_dir():
            raise DataError(f"{path}: no such folder; system.path wants one with a video per prompt, named by its id")
        self._files = _by_stem(self.path)

    def generate(self, prompts: Sequence[Prompt], fps: float | None, frames: int, seed: int) -> list[Tensor]:
        """Return the videos of prompts, (3, F, H, W) in [-1, 1].

        Raises:
            DataError: A prompt has no video or several, or one is damaged or too short.
        """
        return [_shown(self._file(prompt), fps, frames, self.window, seed) for prompt in prompts]

    def fingerprint(self) -> list[Any]:
        """Return names, sizes and times of all files."""
        paths = sorted(path for paths in self._files.values() for path in paths)
        return [self.window, *(_mark(path) for path in paths)]

    def _file(self, prompt: Prompt) -> Path:
        found = self._files.get(prompt.id, [])
        if len(found) != 1:
            what = "no video" if not found else f"{len(found)} videos ({', '.join(path.name for path in found)})"
            raise DataError(f"{self.path}: {what} of prompt {prompt.id}; give one, such as '{prompt.id}.mp4'")
        return found[0]


class Clips:
    """Real videos as a system: each prompt gets one of its group.

    Args:
        files: Group -> its files, in order; prompt number i of a group gets file i.
        window: Which frames are judged.
    """

    def __init__(self, files: Mapping[str, Sequence[Path]], window: Window) -> None:
        self.files, self.window = files, window

    def generate(self, prompts: Sequence[Prompt], fps: float | None, frames: int, seed: int) -> list[Tensor]:
        """Return real videos, (3, F, H, W) in [-1, 1].

        Raises:
            DataError: A group without a file, or a file that is damaged or too short.
        """
        return [_shown(self._file(prompt), fps, frames, self.window, seed) for prompt in prompts]

    def fingerprint(self) -> list[Any]:
        """Return names, sizes and times of all files."""
        return [self.window, *(_mark(path) for paths in self.files.values() for path in paths)]

    def _file(self, prompt: Prompt) -> Path:
        files = self.files.get(prompt.group)
        if not files:
            raise DataError(f"{prompt.group}: has no real video; give all that the benchmark's prompts name")
        number = prompt.id.partition("#")[2] or "0"
        return files[int(number) % len(files)]


def _shown(path: Path, fps: float | None, frames: int, window: Window, seed: int) -> Tensor:
    return dequantise(read_window(path, fps, frames, window, seed).contiguous())


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in EXTENSIONS:
            files[path.stem].append(path)
    return files


def _mark(path: Path) -> list[Any]:
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


class RealSet:
    """Stands for the real videos of whatever benchmark runs: what a perfect system would get."""
