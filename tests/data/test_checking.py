"""A check finds what has changed since the index was made, and a killed one goes on where it was."""

import io
import os
import tarfile
from contextlib import suppress

import numpy as np
import pytest

from lightning_mav.data import checking, index
from lightning_mav.data.checking import check
from lightning_mav.data.index import build
from lightning_mav.data.manifest import read_manifest
from tests.data.conftest import png


@pytest.fixture(autouse=True)
def _quick(monkeypatch, crew_in_this_process):
    monkeypatch.setattr(index, "Crew", crew_in_this_process)
    monkeypatch.setattr(checking, "Crew", crew_in_this_process)


def write_shard(path, num):
    with tarfile.open(path, "w") as tar:
        for i in range(num):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(png(i))
            tar.addfile(info, io.BytesIO(png(i)))


@pytest.mark.row(33)
def test_check_catches_every_flipped_bit(tmp_path):
    write_shard(tmp_path / "0.tar", 3)
    build(str(tmp_path), tmp_path / "manifest.jsonl", 1, 60.0, 16)
    data, draw = (tmp_path / "0.tar").read_bytes(), np.random.default_rng(0)
    samples = list(read_manifest(str(tmp_path / "manifest.jsonl")))
    for _ in range(60):
        number = int(draw.integers(3))
        place, flipped = samples[number].media.offset + int(draw.integers(samples[number].media.size)), bytearray(data)
        flipped[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "0.tar").write_bytes(flipped)
        found = list(check(str(tmp_path), 1, 60.0, 16))
        assert [bool(bad) for bad in found] == [i == number for i in range(3)]
        assert found[number].name == f"0.tar/{number}.png" and "bytes have changed" in found[number].reason


def test_check_compares_facts_and_finds_lost_files(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png(3))
    build(str(tmp_path), tmp_path / "manifest.jsonl", 1, 60.0, 16)
    text = (tmp_path / "manifest.jsonl").read_text()
    (tmp_path / "manifest.jsonl").write_text(text.replace('"width": 6', '"width": 7', 1))
    os.remove(tmp_path / "b.png")
    wrong, lost = check(str(tmp_path / "manifest.jsonl"), 1, 60.0, 16)
    assert "width is 6, but 7 in the manifest" in wrong.reason and "No such file" in lost.reason


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_killed_check_goes_on_where_it_was_and_looks_again_at_what_has_changed(tmp_path, monkeypatch, with_manifest):
    data, notes = tmp_path / "data", tmp_path / "notes"
    data.mkdir()
    for name in "abc":
        write_shard(data / f"{name}.tar", 2)
    if with_manifest:
        build(str(data), data / "manifest.jsonl", 1, 60.0, 16)
    monkeypatch.setattr(checking, "AT_ONCE", 2)
    assert checked(data, notes, 4, monkeypatch) == "aabb"
    assert checked(data, notes, 1, monkeypatch) == "c"
    (data / "a.tar").write_bytes((data / "a.tar").read_bytes().replace(b"PNG", b"GNP"))
    assert checked(data, notes, 9, monkeypatch) == "aacc"
    assert not notes.exists()


def checked(data, notes, num, monkeypatch):
    """Let a check be killed after ``num`` samples; return the shards in which it looked."""
    seen = []

    def counted(work):
        def look(task):
            if len(seen) == num:
                raise KeyboardInterrupt
            seen.append(task.name)
            return work(task)

        return look

    with monkeypatch.context() as patch:
        for name in ("examine", "examine_again"):
            patch.setattr(checking, name, counted(getattr(checking, name)))
        with suppress(KeyboardInterrupt):
            found = list(check(str(data), 1, 60.0, 16, notes))
            assert [bad.name for bad in found if bad] == ["a.tar/0.png", "a.tar/1.png"]
    return "".join(name[0] for name in seen)
