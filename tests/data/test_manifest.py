"""Manifests are read by number, divide a source as its files would be, and notice what has changed."""

import hashlib
import json
import pickle
import shutil

import pytest

from lightning_mav.data import manifest as manifests
from lightning_mav.data.images import open_images
from lightning_mav.data.listing import list_files
from lightning_mav.data.manifest import Sample, head_line, json_line, manifest_of, read_manifest
from lightning_mav.data.shards import Extent
from lightning_mav.data.videos import open_videos
from lightning_mav.errors import DataError


def written(folder, samples, num=None):
    path = folder / "manifest.jsonl"
    rows = [json_line(sample.row(folder)) for sample in samples]
    path.write_bytes(head_line(len(rows) if num is None else num) + b"".join(rows))
    return str(path)


def sample(folder, name="a.jpg", data=b"abc", **facts):
    (folder / name).write_bytes(data)
    media = Extent(str(folder / name), 0, len(data))
    return Sample(name, facts.pop("kind", "image"), media, hashlib.sha256(data).hexdigest(), 4, 2, **facts)


def test_samples_come_back_as_they_were_in_any_order(tmp_path):
    video = {"kind": "video", "frames": 3, "fps": 29.97002997002997, "duration": 0.1}
    samples = [
        sample(tmp_path, "a.jpg", caption='猫 "quoted"\n\ud800'),
        sample(tmp_path, "猫.mp4", **video),
        sample(tmp_path, "b.jpg"),
    ]
    read = read_manifest(written(tmp_path, samples))
    assert [read[i] for i in (2, 0, 1)] == [samples[i] for i in (2, 0, 1)] and list(read) == samples
    assert [s.name for s in read_manifest(read.manifest, "image")] == ["a.jpg", "b.jpg"]


def test_a_folder_with_its_manifest_can_be_moved(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "elsewhere.jpg").write_bytes(b"far")
    far = sample(tmp_path, "elsewhere.jpg", b"far")
    written(tmp_path / "old", [sample(tmp_path / "old", data=b"near"), far])
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert [s.read() for s in read_manifest(manifest_of(str(tmp_path / "new")))] == [b"near", b"far"]


def test_a_manifest_is_divided_as_the_files_are(tmp_path):
    samples = [sample(tmp_path, f"{i}.jpg") for i in range(120)] + [sample(tmp_path, "a.mp4", kind="video")]
    path = written(tmp_path, samples)
    for split, num in (("train", 118), ("val", 2)):
        names = {s.name for s in read_manifest(path, "image", split)}
        assert names == {entry.name for entry in list_files(str(tmp_path), (".jpg",), split)} and len(names) == num


def test_samples_pickle_small(tmp_path):
    few, many = (read_manifest(written(tmp_path, [sample(tmp_path, caption="x" * 500)] * n)) for n in (10, 1010))
    assert len(pickle.dumps(many)) - len(pickle.dumps(few)) <= 8 * 1000 + 100


@pytest.mark.row(37)
def test_changed_bytes_are_named_when_they_are_read(tmp_path, monkeypatch):
    one = sample(tmp_path, data=b"abc")
    assert one.opener()().read() == b"abc"
    (tmp_path / "a.jpg").write_bytes(b"abd")
    for read in (one.read, one.opener):
        with pytest.raises(DataError, match=r"a\.jpg: its bytes .* have changed"):
            read()
    monkeypatch.setattr(manifests, "IN_MEMORY", 2)  # a large video is not read whole
    assert one.opener()().read() == b"abd"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda lines: lines[:-1], "holds 2 samples"),
        (lambda lines: [*lines, lines[-1]], "holds 4 samples"),
        (lambda lines: [*lines[:2], lines[2][:20] + b"\n", lines[3]], "line 3"),
        (lambda lines: [*lines[:3], b'["a"]\n'], "line 4"),
        (lambda lines: [lines[0], *[line.replace(b'"kind"', b'"kin"') for line in lines[1:]]], "line 2"),
        (lambda lines: [json_line({"manifest": 99, "samples": 3}), *lines[1:]], "version 99"),
    ],
)
def test_damaged_manifests_are_named(tmp_path, change, where):
    path = tmp_path / "manifest.jsonl"
    written(tmp_path, [sample(tmp_path, f"{i}.jpg") for i in range(3)])
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(DataError, match=rf"manifest\.jsonl: .*{where}"):
        open_images(str(tmp_path), "train", 8)


def test_a_manifest_without_the_wanted_kind_says_so(tmp_path):
    written(tmp_path, [sample(tmp_path)])
    with pytest.raises(DataError, match=r"manifest\.jsonl: holds no video"):
        open_videos(str(tmp_path), "train", 8)


def test_other_lists_are_no_manifests(tmp_path):
    for name, line in (("a.jsonl", json.dumps({"path": "x.jpg"})), ("b.jsonl", "{"), ("c.csv", "path")):
        (tmp_path / name).write_text(line)
        assert manifest_of(str(tmp_path / name)) is None
    assert manifest_of(str(tmp_path)) is None and manifest_of(str(tmp_path / "missing.jsonl")) is None
