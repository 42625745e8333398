"""What a source holds before anything is decoded: images and videos with their captions, in units of work.

A unit is a shard, or some files of a folder or list; what is made of it is finished and kept as a whole.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from lightning_mav.captions import fault_of
from lightning_mav.data import images, videos, windows
from lightning_mav.data.listing import Entry, list_entries, require_regular_file
from lightning_mav.data.manifest import Kind, manifest_of, read_manifest
from lightning_mav.data.shards import Bad, Extent, Member, scan
from lightning_mav.errors import DataError

ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")  # the compressed ones are found so that they can be refused
SHARD = re.compile(r"\.(tar(\.\w+)?|tgz)$", re.IGNORECASE)
FILES_PER_UNIT = 1000
KINDS: dict[str, Kind] = {
    **dict.fromkeys(images.EXTENSIONS, "image"),
    **dict.fromkeys((*videos.EXTENSIONS, windows.SUFFIX), "video"),
}


@dataclass(frozen=True)
class Candidate:
    """An image or video that nobody has looked into yet.

    Attributes:
        name: Its name within the source.
        kind: By its extension.
        media: Where its bytes lie.
        text: The .txt or .json that may hold its caption.
        caption: What a list says its caption is.
    """

    name: str
    kind: Kind
    media: Extent
    text: Member | None = None
    caption: str | None = None

    def read_caption(self) -> str | None:
        """Return the caption, or None where there is none.

        Raises:
            DataError: It is no text.
        """
        if self.caption is not None or self.text is None:
            return self.caption
        try:
            text = self.text.extent.read().decode("utf-8").strip()
            caption = json.loads(text).get("caption") if self.text.name.lower().endswith(".json") else text
        except (ValueError, AttributeError) as error:
            raise DataError(f"{self.name}: its caption in {self.text.name} is damaged; correct it") from error
        if caption is not None and (not isinstance(caption, str) or fault_of(caption)):
            raise DataError(f"{self.name}: its caption in {self.text.name} is not a text; correct it")
        return caption


class Unit(Protocol):
    """A part of a source."""

    @property
    def state(self) -> tuple[str, ...]:
        """What changes when one of its files does."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes, for a progress bar."""
        ...

    def candidates(self) -> tuple[list[Candidate], list[Bad]]:
        """Return what it holds, and what is refused."""
        ...


@dataclass(frozen=True)
class Shard:
    """A tar, called ``name`` within the source."""

    path: str
    name: str

    @property
    def state(self) -> tuple[str, ...]:
        """Size and time of the tar."""
        return (self.name, file_state(self.path))

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return _size(self.path)

    def candidates(self) -> tuple[list[Candidate], list[Bad]]:
        """Return what the tar holds; one that cannot be used is refused as a whole."""
        try:
            members, refused = scan(self.path)
        except DataError as error:
            return [], [Bad(self.name, reason(error, self.path))]
        texts = {member.name: member for member in members}
        found = [_candidate(self.name, member, texts) for member in members if kind_of(member.name)]
        return found, [Bad(f"{self.name}/{bad.name}", bad.reason) for bad in refused]


def _candidate(shard: str, member: Member, members: dict[str, Member]) -> Candidate:
    key = member.name[: -len(suffix_of(member.name))]
    text = members.get(f"{key}.txt") or members.get(f"{key}.json")
    return Candidate(f"{shard}/{member.name}", KINDS[suffix_of(member.name)], member.extent, text)


@dataclass(frozen=True)
class Files:
    """Some files of a folder or list."""

    entries: Sequence[Entry]

    @property
    def state(self) -> tuple[str, ...]:
        """Names, captions, sizes and times of the files and the texts beside them."""
        return tuple(
            f"{e.name} {file_state(e.path)} {file_state(str(Path(e.path).with_suffix('.txt')))} {e.caption}"
            for e in self.entries
        )

    @property
    def size(self) -> int:
        """Their size in bytes."""
        return sum(_size(entry.path) for entry in self.entries)

    def candidates(self) -> tuple[list[Candidate], list[Bad]]:
        """Return the files that are there, and those that are not or of no known kind."""
        found, bad = [], []
        for entry in self.entries:
            try:
                found.append(_file(entry))
            except DataError as error:
                bad.append(Bad(entry.name, reason(error, entry.path)))
        return found, bad


def _file(entry: Entry) -> Candidate:
    require_regular_file(entry.path)
    if not kind_of(entry.path):
        raise DataError(f"{entry.path}: neither an image nor a video by its extension")
    text = Path(entry.path).with_suffix(".txt")
    member = Member(text.name, _whole(str(text))) if text.is_file() else None
    return Candidate(entry.name, KINDS[suffix_of(entry.path)], _whole(entry.path), member, entry.caption)


def _whole(path: str) -> Extent:
    return Extent(path, 0, _size(path))


def units_of(source: str) -> list[Unit]:
    """Return the parts of a source in a fixed order: its shards, then its files.

    Args:
        source: A tar, or what ``listing.list_entries`` takes; a list may name tars too.

    Raises:
        DataError: Nothing is there, or a row of the list is wrong.
    """
    if SHARD.search(source) and Path(source).is_file():
        return [Shard(source, os.path.basename(source))]
    entries = list_entries(source, (*ARCHIVES, *KINDS))
    shards: list[Unit] = [Shard(entry.path, entry.name) for entry in entries if SHARD.search(entry.path)]
    searched = Path(source).is_dir()  # what a list names is wanted, whatever it is
    files = [e for e in entries if not SHARD.search(e.path) and (kind_of(e.path) or not searched)]
    if not shards and not files:
        raise DataError(f"{source}: holds neither images, videos nor tar shards; name a folder or list that does")
    return [*shards, *(Files(files[i : i + FILES_PER_UNIT]) for i in range(0, len(files), FILES_PER_UNIT))]


def candidates_of(source: str) -> Iterator[Candidate]:
    """Yield everything in a source, or in the manifest that it is or holds.

    Raises:
        DataError: Something is refused.
    """
    for one in survey(source):
        if isinstance(one, Bad):
            raise DataError(f"{one.name}: {one.reason}; or take a manifest (data index), which leaves it out")
        yield one


def survey(source: str) -> Iterator[Candidate | Bad]:
    """Yield everything in a source, or in the manifest that it is or holds, and what is refused."""
    if manifest := manifest_of(source):
        yield from (Candidate(s.name, s.kind, s.media, caption=s.caption) for s in read_manifest(manifest))
        return
    for unit in units_of(source):
        found, bad = unit.candidates()
        yield from bad
        yield from found


def reason(error: Exception, name: str) -> str:
    """Return the message of an error without the name it begins with."""
    return str(error).removeprefix(f"{name}: ")


def kind_of(name: str) -> Kind | None:
    """Return the kind of a file by its extension; the hidden files that some systems leave are of none."""
    return None if PurePosixPath(name).name.startswith("._") else KINDS.get(suffix_of(name))


def suffix_of(name: str) -> str:
    """Return the extension that says what a file is, in lower case."""
    return windows.SUFFIX if windows.is_windows(name) else os.path.splitext(name)[1].lower()


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def file_state(path: str) -> str:
    """Return what changes when a file is written anew."""
    if not os.path.isfile(path):
        return "missing"
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"
