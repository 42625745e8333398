"""The captions of MSR-VTT, from any of the four files in circulation.

The official annotation (videos and sentences), MSRVTT_data.json (the same with all splits in one file),
MSRVTT_JSFUSION_test.csv (one caption a video) and the per-split dictionary video -> {sentence number: caption}.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from eval.prompts import Prompt, checked
from lightning_mav.errors import DataError
from lightning_mav.seeding import generator

CSV_COLUMNS = ("key", "vid_key", "video_id", "sentence")
_Caption = tuple[str, int, str]  # video, sentence number, text


def read_captions(path: Path, split: str = "test") -> list[Prompt]:
    """Return all captions of a split, ordered by number of the video, then of the sentence, whatever the file's order.

    Args:
        path: One of the four files.
        split: "train", "validate" or "test"; files that name no split hold one split only.

    Raises:
        DataError: The file is missing, of none of the four shapes, or holds empty captions or ids that stand twice.
    """
    try:
        read = _from_csv if path.suffix == ".csv" else _from_json
        captions = sorted(read(path, split), key=_order)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the annotation file of MSR-VTT") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no MSR-VTT annotation; give the official json, a {{video: captions}} json or the csv with the "
            f"columns {','.join(CSV_COLUMNS)}"
        ) from error
    return checked((Prompt(f"{video}#{sentence}", text, video) for video, sentence, text in captions), path)


def ascii_only(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Drop captions with other than ASCII characters: 59,794 of the test split's 59,800 are left."""
    return [prompt for prompt in prompts if prompt.text.isascii()]


def one_per_video(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Keep one caption of each video, drawn from (seed, video) alone; captions of a video must be neighbours."""
    return [_drawn(list(captions), seed) for _, captions in groupby(prompts, lambda prompt: prompt.group)]


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Keep the first of the captions of a video that read the same."""
    first: dict[tuple[str, str], Prompt] = {}
    for prompt in prompts:
        first.setdefault((prompt.group, prompt.text), prompt)
    return list(first.values())


def _drawn(captions: list[Prompt], seed: int) -> Prompt:
    draw = generator("one_per_video", seed, captions[0].group)
    return captions[int(torch.randint(len(captions), (), generator=draw))]


def _order(caption: _Caption) -> tuple[int, str, int]:
    video, sentence, _ = caption
    number = re.search(r"\d+", video)
    return (int(number[0]) if number else 0, video, sentence)


def _from_csv(path: Path, split: str) -> Iterator[_Caption]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["video_id"], 0, row["sentence"]


def _from_json(path: Path, split: str) -> Iterator[_Caption]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "sentences" in content:
        wanted = {video["video_id"] for video in content["videos"] if video.get("split", split) == split}
        for row in content["sentences"]:
            if row["video_id"] in wanted:
                yield row["video_id"], int(row["sen_id"]), row["caption"]
    else:
        for video, captions in content.items():
            yield from ((video, int(sentence), text) for sentence, text in captions.items())
