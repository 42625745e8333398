"""Damaged videos of four kinds go through the processes that decode: none ends the run, and none passes unnoticed."""

import io
import zlib
from collections import Counter

import av
import numpy as np
import pytest

from lightning_mav.data import manifest
from lightning_mav.data.candidates import Candidate
from lightning_mav.data.crew import Crew, in_order
from lightning_mav.data.examine import examine
from lightning_mav.data.manifest import Sample, head_line, json_line, read_manifest
from lightning_mav.data.shards import Extent
from lightning_mav.data.videos import IndexedVideos
from lightning_mav.errors import DataError

KINDS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}
FACTS = {"frame count": ("frames",), "timestamps": ("fps", "duration"), "size": ("width", "height")}


def video(kind):
    """Two seconds of a drifting texture."""
    file, texture = (
        io.BytesIO(),
        np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1),
    )
    with av.open(file, "w", format="matroska" if kind == "mkv" else kind) as container:
        stream = container.add_stream(KINDS[kind], 24, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 12
        for i in range(48):
            picture = np.ascontiguousarray(texture[i // 2 : i // 2 + 48, i : i + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def cut(data, draw):
    return data[: int(draw.integers(1, len(data)))]


def flip(data, draw):
    changed = bytearray(data)
    changed[draw.integers(len(data))] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def scatter(data, draw):
    changed = np.frombuffer(data, np.uint8).copy()
    changed[draw.integers(len(data), size=20)] = draw.integers(0, 256, 20)
    return changed.tobytes()


def span(data, draw):
    start, size = int(draw.integers(len(data))), int(draw.integers(1, 2000))
    return data[:start], data[start : start + size], data[start + size :]


def blank(data, draw):
    before, middle, after = span(data, draw)
    return before + bytes(len(middle)) + after


def repeat(data, draw):
    before, middle, after = span(data, draw)
    return before + middle + middle + after


def insert(data, draw):
    before, middle, after = span(data, draw)
    return before + draw.bytes(len(middle)) + middle + after


MUTATIONS = (cut, flip, scatter, blank, repeat, insert)


def mutated(data, num, kind):
    """Return ``num`` damaged copies, as many of each sort of damage."""
    copies = []
    while len(copies) < num:
        draw = np.random.default_rng([len(copies), zlib.crc32(kind.encode())])
        copies.append(MUTATIONS[len(copies) % len(MUTATIONS)](data, draw))
        if copies[-1] == data:
            copies[-1] = flip(data, draw)
    return copies


@pytest.fixture(scope="module")
def crew():
    with Crew(examine, 2, 60.0) as crew:
        yield crew


def examined(crew, files, folder, kind):
    """Return what decoding each of some files gives: a sample, or what is wrong."""
    candidates = []
    with (folder / f"files.{kind}").open("wb") as blob:
        for number, data in enumerate(files):
            candidates.append(Candidate(f"{number}.{kind}", "video", Extent(blob.name, blob.tell(), len(data))))
            blob.write(data)
    return candidates, list(in_order(crew.map(candidates)))


def verdict(outcome, sound):
    """Say by what damage is noticed if nobody compares checksums."""
    if isinstance(outcome, DataError):
        text = str(outcome)
        return "hang" if "not decoded after" in text else "crash" if "crashes the decoder" in text else "decode error"
    differs = [name for name, facts in FACTS.items() if any(getattr(outcome, f) != getattr(sound, f) for f in facts)]
    return differs[0] if differs else "nothing"


def as_indexed(candidate, sound, folder):
    """Return a data source whose manifest takes damaged bytes for the sound video."""
    row = Sample(**{**vars(sound), "name": candidate.name, "media": candidate.media}).row(folder)
    (folder / "m.jsonl").write_bytes(head_line(1) + json_line(row))
    return IndexedVideos(read_manifest(str(folder / "m.jsonl"), "video"))


@pytest.mark.row(20)
@pytest.mark.parametrize("num", [28, pytest.param(500, marks=[pytest.mark.full, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_videos_end_no_run_and_none_passes(crew, tmp_path, monkeypatch, capsys, kind, num):
    original = video(kind)
    candidates, (sound, *outcomes) = examined(crew, [original, *mutated(original, num, kind)], tmp_path, kind)
    assert isinstance(sound, Sample) and sound.frames == 48
    found = [verdict(outcome, sound) for outcome in outcomes]
    counts = Counter(found)
    with capsys.disabled():
        print(f"\n{kind}: {num} damaged files, noticed without a checksum by: {dict(counts.most_common())}", flush=True)
    assert len(outcomes) == num and counts["hang"] == counts["crash"] == 0
    for candidate in candidates[1:]:
        with pytest.raises(DataError, match="have changed"):
            as_indexed(candidate, sound, tmp_path).open(0)
    monkeypatch.setattr(manifest, "IN_MEMORY", 0)  # as a large video, whose checksum training does not compare
    for candidate, fault in zip(candidates[1:], found, strict=True):
        if fault == "frame count":
            with pytest.raises(DataError):
                as_indexed(candidate, sound, tmp_path).open(0)
