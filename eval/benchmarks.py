"""The data of a benchmark: what is asked for, and the real videos that answers are compared with."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol as TypingProtocol

from eval import msrvtt, ucf101
from eval.folders import Clips
from eval.prompts import Prompt
from eval.protocols import Protocol
from lightning_mav.data.videos import EXTENSIONS
from lightning_mav.errors import DataError

SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}


class Benchmark(TypingProtocol):
    """What a protocol needs of a data set."""

    @property
    def name(self) -> str:
        """As the published table calls it: "msrvtt" or "ucf101"."""
        ...

    def prompts(self, protocol: Protocol, seed: int) -> list[Prompt]:
        """Return the prompts to make videos of."""
        ...

    def real(self, protocol: Protocol) -> tuple[list[Prompt], Clips] | None:
        """Return the real videos, each with a prompt that names it, and how to read them; None without any."""
        ...


@dataclass(frozen=True)
class MsrVtt:
    """MSR-VTT.

    Attributes:
        captions: The annotation file, see ``msrvtt.read_captions``.
        videos: Folder of the test videos, called video7010.mp4 and so on; None where no metric needs them.
        name: Of the published table.
    """

    captions: str
    videos: str | None = None
    name: str = "msrvtt"

    def prompts(self, protocol: Protocol, seed: int) -> list[Prompt]:
        """Return the captions that a protocol takes, in the order of videos and sentences."""
        captions = self._captions
        if protocol.captions == "ascii":
            return msrvtt.ascii_only(captions)
        return msrvtt.one_per_video(captions, seed) if protocol.captions == "one_per_video" else captions

    def real(self, protocol: Protocol) -> tuple[list[Prompt], Clips] | None:
        """Return one real video per video of the split."""
        if self.videos is None:
            return None
        found = {path.stem: [path] for path in _files(self.videos)}
        groups = list(dict.fromkeys(prompt.group for prompt in self._captions))
        return [Prompt(group, group, group) for group in groups], Clips(found, protocol.real_window)

    @cached_property
    def _captions(self) -> list[Prompt]:
        return msrvtt.read_captions(Path(self.captions))


@dataclass(frozen=True)
class Ucf101:
    """UCF-101.

    Attributes:
        lists: Folder of the split lists (trainlist01.txt, testlist01.txt).
        videos: Folder of the class folders; None where no metric needs them.
        name: Of the published table.
    """

    lists: str
    videos: str | None = None
    name: str = "ucf101"

    def prompts(self, protocol: Protocol, seed: int) -> list[Prompt]:
        """Return prompts class by class: ``num_videos`` shared out evenly, or in proportion to the train split."""
        counts = ucf101.class_counts(self._split("train"))
        if protocol.share == "even":
            counts = dict.fromkeys(counts, 1)
        return ucf101.prompts(protocol.prompt_list, ucf101.proportional(counts, protocol.num_videos or 0))

    def real(self, protocol: Protocol) -> tuple[list[Prompt], Clips] | None:
        """Return the clips of the protocol's splits."""
        if self.videos is None:
            return None
        names = [name for split in SPLITS[protocol.real_split] for name in self._split(split)]
        present = {path.name: path for path in _files(self.videos)}
        files: dict[str, list[Path]] = defaultdict(list)
        prompts = []
        for name in names:
            group = ucf101.class_of(name)
            prompts.append(Prompt(f"{group}#{len(files[group])}", group, group))
            files[group].append(_required(present, name, self.videos))
        return prompts, Clips(files, protocol.real_window)

    def _split(self, split: str) -> list[str]:
        return ucf101.read_split(Path(self.lists) / f"{split}list01.txt")


def _files(folder: str) -> Sequence[Path]:
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; benchmark.data.videos wants the one of the real videos")
    return [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in EXTENSIONS]


def _required(present: dict[str, Path], name: str, folder: str) -> Path:
    file = Path(name).name
    if file not in present:
        raise DataError(f"{folder}: holds no {file}, which the lists name; give all videos of the split")
    return present[file]
