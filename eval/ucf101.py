"""UCF-101: its classes, its splits, the prompts that stand for a class, and how many videos each class gets."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import yaml

from eval.prompts import Prompt, checked
from lightning_mav.errors import ConfigError, DataError

PromptList = Literal["class_names", "pyoco", "sentences_v1"]
FILE = Path(__file__).with_name("ucf101_prompts.yaml")
NUM_CLASSES = 101


@cache
def _lists() -> dict[str, dict[str, str]]:
    lists: dict[str, dict[str, str]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return lists


def class_names() -> list[str]:
    """Return the names of the 101 classes, in the order of their numbers."""
    return list(_lists()["pyoco"])


def readable(name: str) -> str:
    """Return a class's name as words: "ApplyEyeMakeup" as "apply eye makeup"."""
    return " ".join(re.findall("[A-Z][a-z]*", name)).lower()


def class_texts(prompt_list: PromptList) -> dict[str, str]:
    """Return the text of each class.

    Raises:
        ConfigError: No such list.
    """
    if prompt_list not in get_args(PromptList):
        raise ConfigError(f"prompts: '{prompt_list}' is none of {', '.join(get_args(PromptList))}")
    return {name: readable(name) for name in class_names()} if prompt_list == "class_names" else _lists()[prompt_list]


def prompts(prompt_list: PromptList, counts: Mapping[str, int]) -> list[Prompt]:
    """Return ``counts[name]`` prompts of each class, with ids such as "Archery#3".

    Raises:
        ConfigError: No such list.
    """
    texts = class_texts(prompt_list)
    return checked((Prompt(f"{name}#{i}", texts[name], name) for name in texts for i in range(counts[name])), FILE)


def read_classes(path: Path) -> list[str]:
    """Read classInd.txt: lines of number and name.

    Raises:
        DataError: The file is missing or is not the list of the 101 classes.
    """
    rows = [line.split() for line in _lines(path)]
    names = [row[1] for row in rows if len(row) == 2]
    if [row[0] for row in rows] != [str(i + 1) for i in range(NUM_CLASSES)] or names != class_names():
        raise DataError(f"{path}: is not the list of UCF-101's {NUM_CLASSES} classes; give the original classInd.txt")
    return names


def read_split(path: Path) -> list[str]:
    """Read a train or test list: paths such as "Archery/v_Archery_g01_c01.avi", sorted, without their class numbers.

    Raises:
        DataError: The file is missing, or a line names no clip of a known class.
    """
    clips = sorted(line.split()[0] for line in _lines(path))
    for clip in clips:
        class_of(clip)
    return clips


def class_of(clip: str) -> str:
    """Return the class of a clip by its file's name; HandstandPushups' files are called v_HandStandPushups.

    Raises:
        DataError: The name is not UCF-101's.
    """
    found = re.fullmatch(r"(?:.*/)?v_([A-Za-z]+)_g\d+_c\d+\.\w+", clip)
    name = _by_lower_case().get(found[1].lower()) if found else None
    if name is None:
        raise DataError(f"{clip}: is no clip of UCF-101; they are called like v_Archery_g01_c01.avi")
    return name


@cache
def _by_lower_case() -> dict[str, str]:
    return {name.lower(): name for name in class_names()}


def class_counts(clips: Sequence[str]) -> dict[str, int]:
    """Return the number of clips of each class."""
    counts = Counter(class_of(clip) for clip in clips)
    return {name: counts[name] for name in class_names()}


def proportional(counts: Mapping[str, int], num: int) -> dict[str, int]:
    """Share ``num`` videos among classes in proportion to ``counts``, to the last one (largest remainders)."""
    total = sum(counts.values())
    shares = {name: count * num // total for name, count in counts.items()}
    remainders = sorted(counts, key=lambda name: -(counts[name] * num % total))
    for name in remainders[: num - sum(shares.values())]:
        shares[name] += 1
    return shares


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read; give the list from UCF-101's ucfTrainTestlist folder") from error
