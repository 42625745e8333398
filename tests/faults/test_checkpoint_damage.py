"""Damage after the fact: every flipped bit is noticed, a run goes back to the last whole checkpoint and says so."""

import json
import os
import random
import shutil

import pytest

from lightning_mav.checkpoint.digest import marker_of, verify
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.errors import CheckpointError
from tests.faults.forks import Case, server
from tests.faults.outcome import outcome
from tests.faults.tiny_stages import saving_each_step

STEPS = 6


@pytest.fixture(scope="module")
def words(tmp_path_factory, image_folder):
    """Return a function that gives the command of a run in a folder, of some steps."""
    return saving_each_step(tmp_path_factory.mktemp("stages"), image_folder)


@pytest.fixture(scope="module")
def runs(words, tmp_path_factory):
    """An undisturbed run; one that has two checkpoints and is not at its end; and what the first did to its files."""
    folder = tmp_path_factory.mktemp("runs")
    note = ["kills:order_of_writing", str(folder / "order")]
    ended = server().run([Case(words(folder / "whole", STEPS), note), Case(words(folder / "short", STEPS - 2))])
    assert [one.err for one in ended if one.status] == []
    return folder


def flipped(content, bit):
    """Return bytes in which one bit is another."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def rewrite(path, content, moment):
    """Replace what a file holds, at a time of its own."""
    path.write_bytes(content)
    os.utime(path, ns=(moment, moment))


@pytest.mark.row(53)
def test_a_thousand_flipped_bits_of_a_thousand_are_noticed(runs, tmp_path):
    path = tmp_path / newest_checkpoint(runs / "short").name
    for one in (path, marker_of(path)):
        shutil.copy(runs / "short" / "checkpoints" / one.name, one)
    content, noticed = path.read_bytes(), 0
    for moment, bit in enumerate(random.Random(0).sample(range(8 * len(content)), 1000)):
        rewrite(path, flipped(content, bit), moment)
        with pytest.raises(CheckpointError, match=f"{path.name}: damaged"):
            verify(path)
        noticed += 1
    assert noticed == 1000
    rewrite(path, content, 1000)
    verify(path)


@pytest.mark.row(53)
def test_a_damaged_marker_is_noticed_or_says_the_same(runs, tmp_path):
    path = tmp_path / newest_checkpoint(runs / "short").name
    shutil.copy(newest_checkpoint(runs / "short"), path)
    content, noticed = marker_of(newest_checkpoint(runs / "short")).read_bytes(), 0
    for bit in range(8 * len(content)):
        marker_of(path).write_bytes(flipped(content, bit))
        try:
            verify(path)
        except CheckpointError:
            noticed += 1
    assert noticed > 0.99 * 8 * len(content)


DAMAGE = {
    "flipped": lambda content: flipped(content, 4 * len(content)),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"these are no weights\n",
}


@pytest.mark.row(53)
def test_a_run_goes_back_to_the_checkpoint_before_a_damaged_one(words, runs, tmp_path):
    for name, damage in DAMAGE.items():
        shutil.copytree(runs / "short", tmp_path / name, symlinks=True)
        newest = newest_checkpoint(tmp_path / name)
        newest.write_bytes(damage(newest.read_bytes()))
    ended = server().run([Case(words(tmp_path / name, STEPS)) for name in DAMAGE])
    for name, one in zip(DAMAGE, ended, strict=True):
        assert one.status == 0, one.err
        assert f"step={STEPS - 2:06d}.ckpt: damaged" in one.out
        assert f"resuming {tmp_path / name} at step {STEPS - 3}" in one.out
        assert outcome(newest_checkpoint(tmp_path / name)) == outcome(newest_checkpoint(runs / "whole"))


@pytest.mark.row(53)
def test_a_run_without_a_whole_checkpoint_is_refused_in_one_line(words, runs, tmp_path):
    shutil.copytree(runs / "short", tmp_path / "run", symlinks=True)
    for path in (tmp_path / "run" / "checkpoints").glob("step=*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1])
    (ended,) = server().run([Case(words(tmp_path / "run", STEPS))])
    assert ended.status == 4
    assert [str(tmp_path / "run") in line for line in ended.errors] == [True]


@pytest.mark.row(41)
def test_nothing_has_its_name_before_it_is_on_the_disk(runs):
    """Of a checkpoint and its marker: bytes, then name, then folder; old ones go when all of that is done."""
    folder = runs / "whole" / "checkpoints"
    events = [tuple(json.loads(line)) for line in (runs / "order").read_text().splitlines()]
    checkpoint = folder / f"step={STEPS - 1:06d}.ckpt"
    named = {}
    for path in (checkpoint, marker_of(checkpoint)):
        (place,) = (i for i, event in enumerate(events) if event[0] == "os.rename" and event[2] == str(path))
        assert ("fsync", events[place][1]) in events[:place]
        named[path] = events.index(("fsync", str(folder)), place)
    assert named[marker_of(checkpoint)] < named[checkpoint]  # so that a checkpoint never stands without
    removed = [
        i for i, event in enumerate(events) if event[:2] == ("os.remove", str(folder / f"step={STEPS - 3:06d}.ckpt"))
    ]
    assert len(removed) == 1 and removed[0] > named[checkpoint]
