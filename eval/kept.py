"""A system whose videos are kept as they are, so that another network or frame size needs none of them made again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from eval.prompts import Prompt
from eval.store import digest
from eval.systems import System
from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.transforms import dequantise, quantise

VIDEO = "video"


class Kept:
    """Makes each video of a system once, and stores it in 8 bits without loss: 3 F H W bytes.

    Args:
        system: What makes the videos.
        folder: Where they are kept, apart for every frame rate, number of frames and seed.
    """

    def __init__(self, system: System, folder: Path) -> None:
        self.system, self.folder = system, folder

    def generate(self, prompts: Sequence[Prompt], fps: float | None, frames: int, seed: int) -> list[Tensor]:
        """Return videos (3, F, H, W) in [-1, 1], made or found."""
        folder = self.folder / f"videos-{digest([self.fingerprint(), fps, frames, seed])}"
        paths = {prompt: folder / f"{prompt.key}.safetensors" for prompt in prompts}
        if missing := [prompt for prompt, path in paths.items() if not path.exists()]:
            videos = self.system.generate(missing, fps, frames, seed)
            for prompt, video in zip(missing, videos, strict=True):
                _write(quantise(video.cpu()), paths[prompt])
        return [dequantise(load_file(path)[VIDEO]) for path in paths.values()]

    def fingerprint(self) -> list[Any]:
        """Return the system's own: keeping its videos changes none."""
        return self.system.fingerprint()


def _write(video: Tensor, path: Path) -> None:
    content = save({VIDEO: video.contiguous()})
    write_atomically(path, lambda file: file.write(content))
