"""Small videos show the same frames at the same times, with key frames where they were asked for."""

import io
import json
from contextlib import suppress
from functools import partial

import av
import numpy as np
import pytest
import torch

from lightning_mav.data import transcoding
from lightning_mav.data.candidates import Candidate, candidates_of
from lightning_mav.data.prepared_reader import GroupReader
from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.readers import open_video
from lightning_mav.data.shards import Extent
from lightning_mav.data.transcoding import Transcoder, prepare
from lightning_mav.data.transforms import resize_to_cover
from lightning_mav.data.video_streams import Stream
from lightning_mav.errors import DataError

SMALL = Transcoder(size=96, gop=6, crf=18)


def candidate(path):
    return Candidate(path.name, "video", Extent(str(path), 0, path.stat().st_size))


def reader_of(data):
    return open_video("small", partial(io.BytesIO, data))


@pytest.mark.parametrize("name", ["realshort.mp4", "rotated_90.mov", "unordered.mov", "stretching.mp4", "test.avi"])
def test_real_clips_keep_their_frames_and_times(shared_data, name):
    path = shared_data / "clips" / name
    before, data = open_video(str(path)), SMALL(candidate(path))
    after = reader_of(data)
    assert np.allclose(after.timestamps, before.timestamps - before.timestamps[0], atol=2e-5)
    wanted = np.unique(np.linspace(0, len(before.timestamps) - 1, 6).astype(int))
    frames, small = before.frames(wanted), after.frames(wanted)
    short = min(96, *frames.shape[1:3])
    resized = resize_to_cover(frames, short, short)[:, : small.shape[1], : small.shape[2]]
    assert short - 1 <= min(small.shape[1:3]) <= short
    assert (small.float() - resized).abs().mean() < 6


def test_key_frames_come_often_and_the_bytes_depend_on_nothing_else(video_folder):
    data = SMALL(candidate(video_folder / "a.mp4"))
    assert data == SMALL(candidate(video_folder / "a.mp4"))
    with av.open(io.BytesIO(data)) as container:
        keys = [i for i, packet in enumerate(p for p in container.demux(video=0) if p.size) if packet.is_keyframe]
    assert keys[0] == 0 and max(np.diff(keys)) <= 6 and len(keys) >= 10


def test_a_window_costs_the_groups_it_touches_and_is_right(video_folder):
    data = SMALL(candidate(video_folder / "a.mp4"))
    video, whole = reader_of(data), PyAVReader("small", Stream(0, 0, 192, 96, 60), partial(io.BytesIO, data))
    assert isinstance(video, GroupReader) and np.allclose(video.timestamps, whole.timestamps)
    frames = torch.from_numpy(np.stack(list(whole.all_frames())))
    for wanted in ([0], [59], [0, 59], [5, 6, 7], [11, 12, 30], list(range(60))):
        assert torch.equal(video.frames(np.array(wanted)), frames[wanted])
    for place in range(len(data) // 3, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[place : place + 30] = bytes(30)
        with suppress(DataError):  # an error, or as many frames as were asked for
            assert len(reader_of(bytes(damaged)).frames(np.arange(60))) == 60


@pytest.mark.parametrize("change", [(0, b"free"), (12, b"\0\0\0\3")], ids=["no key frames named", "a later first one"])
def test_key_frames_that_are_named_wrongly_are_damage(video_folder, change):
    data = bytearray(SMALL(candidate(video_folder / "a.mp4")))
    place = data.index(b"stss") + change[0]
    data[place : place + 4] = change[1]
    with pytest.raises(DataError, match="damaged"):
        reader_of(bytes(data)).frames(np.array([9]))


def test_a_source_becomes_shards_and_a_killed_run_goes_on(video_folder, tmp_path, monkeypatch, crew_in_this_process):
    monkeypatch.setattr(transcoding, "Crew", crew_in_this_process)
    (tmp_path / "bad.mp4").write_text("no video " * 100)
    rows = [{"path": str(path), "text": path.name} for path in (*sorted(video_folder.iterdir()), tmp_path / "bad.mp4")]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    make = partial(prepare, str(tmp_path / "list.jsonl"), form=SMALL, num_workers=1, deadline=60.0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert make(out=whole, samples_per_shard=2) == {"good": 3, "bad": 1}
    made = list(candidates_of(str(whole)))
    assert [one.read_caption() for one in made] == ["a.mp4", "b.mkv", "c.mp4"]
    assert [len(reader_of(one.media.read()).timestamps) for one in made] == [60, 60, 60]
    assert json.loads((whole / "00001.bad.jsonl").read_text())["name"] == rows[3]["path"]

    make(out=killed, samples_per_shard=2)
    (killed / "00001.tar").unlink()
    assert make(out=killed, samples_per_shard=2) == {"good": 3, "bad": 1}
    assert {p.name: p.read_bytes() for p in killed.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
    with pytest.raises(DataError, match="holds shards of another source, or with other settings"):
        make(out=killed, samples_per_shard=2, form=Transcoder(96, 6, 19))


def test_damaged_videos_are_named(shared_data):
    with pytest.raises(DataError, match=r"corrupted\.mp4"):
        SMALL(candidate(shared_data / "clips" / "corrupted.mp4"))
    assert torch.is_tensor(reader_of(SMALL(candidate(shared_data / "clips" / "h265.mp4"))).frames(np.arange(1)))


def test_what_cannot_be_prepared_is_listed_and_the_rest_is_made(
    video_folder, image_folder, tmp_path, monkeypatch, crew_in_this_process
):
    monkeypatch.setattr(transcoding, "Crew", crew_in_this_process)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("a.mp4", "c.mp4"):
        (source / name).write_bytes((video_folder / name).read_bytes())
    for name in ("zero.mp4", "zero.jpg"):
        (source / name).touch()
    (source / "picture.jpg").write_bytes((image_folder / "a.jpg").read_bytes())
    (source / "c.txt").write_bytes(b"caf\xe9")
    assert prepare(str(source), out, SMALL, 10, 1, 60.0) == {"good": 1, "bad": 2}
    assert sorted(path.name for path in out.glob("*.bad.jsonl")) == ["00000.bad.jsonl", "source.bad.jsonl"]
    refused, bad = (json.loads((out / f"{name}.bad.jsonl").read_text()) for name in ("source", "00000"))
    assert refused["name"] == "zero.mp4" and "empty file" in refused["reason"]
    assert bad["name"] == "c.mp4" and "its caption in c.txt is damaged" in bad["reason"]
    with pytest.raises(DataError, match="holds no video that can be used"):
        prepare(str(image_folder), tmp_path / "none", SMALL, 10, 1, 60.0)
