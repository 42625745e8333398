"""An index finds what decoding finds, training reads the same through it, and a killed run ends in the same bytes."""

import gzip
import io
import json
import os
import tarfile
from contextlib import suppress

import numpy as np
import pytest
import torch

from lightning_mav.data import checking, index
from lightning_mav.data.candidates import candidates_of
from lightning_mav.data.checking import check
from lightning_mav.data.images import ImageDataset, open_images
from lightning_mav.data.index import build
from lightning_mav.data.manifest import read_manifest
from lightning_mav.data.packing import pack
from lightning_mav.data.videos import VideoDataset, open_videos
from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import DataError
from tests.data.conftest import png


@pytest.fixture(autouse=True)
def _quick(monkeypatch, crew_in_this_process):
    monkeypatch.setattr(index, "Crew", crew_in_this_process)
    monkeypatch.setattr(checking, "Crew", crew_in_this_process)


def indexed(source, out, min_frames=16):
    counts = build(str(source), out, 1, 60.0, min_frames)
    bad = out.with_name(out.name + ".bad.jsonl")
    return counts, [json.loads(line) for line in bad.read_text().splitlines()] if bad.exists() else []


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def samples_of(dataset):
    return [dataset[i, 100 + i] for i in range(len(dataset))]


def same(a, b):
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a.keys() | b.keys())


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_train_as_they_do_from_their_folder(image_folder, tmp_path, split):
    assert indexed(image_folder, tmp_path / "m.jsonl") == ({"image": 8}, [])
    sets = [
        ImageDataset(open_images(str(source), split, 16), 16, 0, "crop+flip")
        for source in (image_folder, tmp_path / "m.jsonl")
    ]
    direct, by_index = map(samples_of, sets)
    assert len(direct) == len(by_index) > 0 and all(map(same, direct, by_index))
    assert all("caption" in sample for sample in by_index)


def test_videos_train_as_they_do_from_their_folder(video_folder, tmp_path):
    assert indexed(video_folder, tmp_path / "m.jsonl") == ({"video": 3}, [])
    direct, by_index = (
        samples_of(VideoDataset(open_videos(str(source), "train", 16), 16, 8, 6.0, 0, "crop+flip"))
        for source in (video_folder, tmp_path / "m.jsonl")
    )
    assert len(direct) == len(by_index) == 2 and all(map(same, direct, by_index))


def test_packed_shards_hold_the_same_samples(image_folder, video_folder, tmp_path):
    (tmp_path / "list.csv").write_text(
        "path,caption\n" + "".join(f'{p},"{p.name}, moving"\n' for p in sorted(video_folder.iterdir()))
    )
    assert pack(str(image_folder), tmp_path / "images", 3) == (8, 3)
    assert pack(str(tmp_path / "list.csv"), tmp_path / "videos", 100) == (3, 1)
    for source, folder in ((image_folder, "images"), (tmp_path / "list.csv", "videos")):
        indexed(tmp_path / folder, tmp_path / folder / "manifest.jsonl")
        before, after = list(candidates_of(str(source))), read_manifest(str(tmp_path / folder / "manifest.jsonl"))
        assert [(c.media.read(), c.read_caption()) for c in before] == [(s.read(), s.caption) for s in after]
    assert open_videos(str(tmp_path / "videos"), "train", 16).open(0).frames(np.arange(2)).shape == (2, 32, 64, 3)


def test_captions_come_from_text_first_then_json(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key in ("text", "json", "none", "nul", "bad"):
            add(tar, f"{key}.png", png())
        add(tar, "text.txt", "  ein Ring ○\n".encode())
        for key in ("text", "json"):
            add(tar, f"{key}.json", b'{"caption": "from json", "status": "success"}')
        add(tar, "none.json", b'{"status": "success"}')
        add(tar, "nul.txt", b"a\0b")
        add(tar, "bad.txt", b"caf\xe9")
        add(tar, "alone.txt", b"no image")
    counts, bad = indexed(tmp_path, tmp_path / "manifest.jsonl")
    captions = [s.caption for s in read_manifest(str(tmp_path / "manifest.jsonl"))]
    assert captions == ["ein Ring ○", "from json", None] and counts["uncaptioned"] == 1
    assert [row["name"] for row in bad] == ["0.tar/nul.png", "0.tar/bad.png"]


def test_what_is_bad_is_listed_with_its_name_and_the_rest_is_used(tmp_path):
    write_mp4(tmp_path / "short.mp4", torch.zeros(15, 16, 16, 3, dtype=torch.uint8), 8)
    (tmp_path / "text.mp4").write_text("no video " * 100)
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "half.png").write_bytes(png()[:40])
    os.mkfifo(tmp_path / "pipe.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "../up.png", png())
        add(tar, "good.png", png(9))
        add(tar, "model.pth", b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
        add(tar, "list.mp4", b"ffconcat version 1.0\nfile short.mp4\n")
        add(tar, "._good.png", b"left by a Mac")
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    (tmp_path / "notes.json.gz").write_bytes(b"of no interest")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    counts, bad = indexed(tmp_path, tmp_path / "manifest.jsonl")
    assert counts["image"] == 2 and counts["video"] == 0
    found = {row["name"]: row["reason"] for row in bad}
    assert len(found) == counts["bad"] == len(bad)
    wanted = {
        "a.tar/../up.png": "leaves the shard",
        "a.tar/model.pth": "pickle",
        "a.tar/list.mp4": "cannot be read as a video",
        "cut.tar": "cut short",
        "b.tar.gz": "compressed by gzip",
        "short.mp4": "15 frames, fewer than the 16",
        "text.mp4": "cannot be read as a video",
        "zero.jpg": "empty file",
        "half.png": "cannot be read",
        "pipe.png": "not a regular file",
    }
    assert found.keys() == wanted.keys() and all(wanted[name] in found[name] for name in wanted)


@pytest.mark.row(15)
def test_a_playlist_cannot_open_files_beside_it(video_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(video_folder)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (bad,) = check(str(tmp_path), 1, 60.0, 1)
    assert "cannot be read as a video" in bad.reason


def test_a_source_without_anything_good_leaves_no_manifest(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"no sample can be used.*bad\.jsonl says why"):
        indexed(tmp_path, tmp_path / "manifest.jsonl")
    assert "a.jpg" in (tmp_path / "manifest.jsonl.bad.jsonl").read_text()


def test_a_run_killed_anywhere_ends_in_the_same_bytes_and_repeats_no_finished_shard(tmp_path, monkeypatch):
    for number in range(4):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for i in range(3):
                add(tar, f"{i}.png", png(10 * number + i) if (number, i) != (1, 1) else b"bad")
    indexed(tmp_path, tmp_path / "whole" / "m.jsonl")
    whole = [(tmp_path / "whole" / name).read_bytes() for name in ("m.jsonl", "m.jsonl.bad.jsonl")]
    runs = [decoded_in_a_run(tmp_path, num, monkeypatch) for num in (2, 4, 2, 5, 100)]
    assert runs == ["00", "0001", "11", "11122", "222333"]
    assert [(tmp_path / "killed" / name).read_bytes() for name in ("m.jsonl", "m.jsonl.bad.jsonl")] == whole
    assert sorted(os.listdir(tmp_path / "killed")) == ["m.jsonl", "m.jsonl.bad.jsonl"]


def decoded_in_a_run(folder, num, monkeypatch):
    """Let a run be killed after ``num`` images; return the numbers of their shards."""
    seen = []
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(index, "examine", killed_after(num, index.examine, seen))
        indexed(folder, folder / "killed" / "m.jsonl")
    return "".join(name[0] for name in seen)


def killed_after(num, work, seen):
    def examine(candidate):
        if len(seen) == num:
            raise KeyboardInterrupt
        seen.append(candidate.name)
        return work(candidate)

    return examine


def test_a_shard_that_has_changed_is_not_taken_from_the_killed_run(tmp_path, monkeypatch):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            add(tar, "a.png", png(number))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index, "examine", killed_after(1, index.examine, []))
        indexed(tmp_path, tmp_path / "manifest.jsonl")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "a.png", png(77))
    indexed(tmp_path, tmp_path / "manifest.jsonl")
    assert open_images(str(tmp_path), "train", 8).image(0).unique().tolist() in ([77], [1])
    assert not [bad for bad in check(str(tmp_path), 1, 60.0, 16) if bad]


FACTS = {  # frames, frames per second, width and height as ffprobe and the clips' sources say
    "arm_wrestling.mp4": (280, 28, 340, 256),
    "av1.mkv": (125, 25, 640, 360),
    "nasa.mp4": (390, 30000 / 1001, 480, 270),
    "pancake.mkv": (310, 30, 426, 240),
    "realshort.mp4": (36, 30.02, 320, 240),
    "rotated_90.mov": (3, 30, 320, 568),
    "stretching.mp4": (57, 6, 340, 256),
    "test.avi": (164, 25, 320, 240),
    "h264_10bit.mp4": (30, 30, 200, 200),
    "h265.mp4": (10, 10, 128, 128),
}


SMALL = ("realshort.mp4", "rotated_90.mov", "test.avi", "h264_10bit.mp4", "h265.mp4")


@pytest.mark.parametrize(("packed", "clips", "min_frames"), [(False, tuple(FACTS), 1), (True, SMALL, 16)])
def test_facts_of_real_clips(shared_data, tmp_path, packed, clips, min_frames):
    source = tmp_path / "list.jsonl"
    names = [str(shared_data / "clips" / name) for name in (*clips, "corrupted.mp4")]
    source.write_text("\n".join(json.dumps({"path": name}) for name in names))
    if packed:
        pack(str(source), tmp_path / "shards", 100)
        source = tmp_path / "shards"
        names = [f"00000.tar/00000{i:04d}{os.path.splitext(name)[1]}" for i, name in enumerate(names)]
    wanted = dict(zip(names, (FACTS[name] for name in clips), strict=False))
    long = {name: facts for name, facts in wanted.items() if facts[0] >= min_frames}
    _, bad = indexed(source, tmp_path / "m.jsonl", min_frames)
    assert {row["name"] for row in bad} == set(names) - set(long)
    for sample, (frames, fps, *size) in zip(read_manifest(str(tmp_path / "m.jsonl")), long.values(), strict=True):
        assert (sample.frames, [sample.width, sample.height]) == (frames, size)
        assert sample.fps == pytest.approx(fps, rel=1e-3) and sample.duration == pytest.approx(frames / fps, rel=1e-3)


def test_packing_goes_on_after_a_kill_and_refuses_to_mix(image_folder, tmp_path):
    pack(str(image_folder), tmp_path / "whole", 3)
    shards = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.tar")}
    pack(str(image_folder), tmp_path / "killed", 3)
    os.remove(tmp_path / "killed" / "00001.tar")
    kept = (tmp_path / "killed" / "00000.tar").stat().st_mtime_ns
    pack(str(image_folder), tmp_path / "killed", 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").glob("*.tar")} == shards
    assert (tmp_path / "killed" / "00000.tar").stat().st_mtime_ns == kept
    with pytest.raises(DataError, match="killed: holds shards of another source"):
        pack(str(image_folder), tmp_path / "killed", 4)


def test_a_bad_file_is_named_with_the_way_around_it(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DataError, match=r"a\.mp4: empty file.*take a manifest \(data index\)"):
        list(candidates_of(str(tmp_path)))
