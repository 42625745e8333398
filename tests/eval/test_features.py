import json
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest
import torch

from eval import features
from eval.features import FeatureStore
from eval.store import write_json
from lightning_mav.errors import DataError


def ids(num):
    return [f"p{i}" for i in range(num)]


LOOKS = {"video": "network"}


def work(numbers, looks, folder):
    rows = [{"id": f"p{i}"} for i in numbers]
    return rows, {look: torch.tensor([[[float(i), i / 7 + len(look)]] for i in numbers]) for look in looks}


def test_features_come_in_the_order_of_the_set_whatever_the_chunk(tmp_path):
    found = [FeatureStore(tmp_path / str(chunk), chunk).extract("set", 1, LOOKS, ids(7), work) for chunk in (1, 3, 7)]
    for one in found:
        assert one.tensors["video"][:, 0, 0].tolist() == list(range(7))
        assert [row["id"] for row in one.rows] == ids(7)


def test_a_manifest_has_a_line_per_video_that_names_its_shard(tmp_path):
    FeatureStore(tmp_path, 3).extract("set", 1, LOOKS, ids(7), work)
    (folder,) = tmp_path.glob("*/video-*")
    lines = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == ids(7)
    assert {line["shard"] for line in lines} == {path.name for path in folder.glob("*.safetensors")}


def counting(made):
    def counted(numbers, looks, folder):
        made.append((list(numbers), list(looks)))
        return work(numbers, looks, folder)

    return counted


def test_another_key_is_another_set_and_the_same_one_is_not_made_again(tmp_path):
    store, made = FeatureStore(tmp_path, 6), []
    for key in (1, 1, 2):
        store.extract("set", key, LOOKS, ids(6), counting(made))
    assert made == [(list(range(6)), ["video"])] * 2


def test_other_lists_and_looks_take_what_is_there_and_make_the_rest(tmp_path):
    store, made, two = FeatureStore(tmp_path, 4), [], LOOKS | {"frames/all": "network"}
    store.extract("set", 1, LOOKS, ids(6), counting(made))
    made.clear()
    part = store.extract("set", 1, LOOKS, ["p4", "p1"], counting(made))
    assert made == [] and part.tensors["video"][:, 0, 0].tolist() == [4.0, 1.0]
    assert [row["id"] for row in part.rows] == ["p4", "p1"]
    both = store.extract("set", 1, two, ids(8), counting(made))
    assert made == [([0, 1, 2, 3], ["frames/all"]), ([4, 5], ["frames/all"]), ([6, 7], ["video", "frames/all"])]
    assert both.tensors["video"][:, 0, 0].tolist() == both.tensors["frames/all"][:, 0, 0].tolist() == [*range(8)]
    made.clear()
    store.extract("set", 1, {"video": "another network"}, ids(2), counting(made))
    assert made == [([0, 1], ["video"])]


def test_a_video_with_an_error_has_a_row_and_no_features(tmp_path):
    def broken(numbers, looks, folder):
        rows, tensors = work(numbers, looks, folder)
        usable = [place for place, i in enumerate(numbers) if i != 2]
        rows = [row | ({"error": "damaged"} if row["id"] == "p2" else {}) for row in rows]
        return rows, {look: tensor[usable] for look, tensor in tensors.items()}

    found = FeatureStore(tmp_path, 3).extract("set", 1, LOOKS, ids(5), broken)
    assert [row["id"] for row in found.kept] == ["p0", "p1", "p3", "p4"]
    assert found.tensors["video"][:, 0, 0].tolist() == [0, 1, 3, 4]


@pytest.mark.row(58)
def test_features_from_elsewhere_are_refused(tmp_path):
    store = FeatureStore(tmp_path, 4)
    store.extract("set", 1, LOOKS, ids(4), work)
    (manifest,) = tmp_path.glob("*/*/*.jsonl")
    manifest.write_text(manifest.read_text().replace('"key": "', '"key": "other'))
    with pytest.raises(DataError, match=r"comes from another extractor, system or protocol"):
        store.extract("set", 1, LOOKS, ids(4), work)


def test_processes_share_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "POLL", 0.01)
    found = {}

    def run(rank):
        found[rank] = FeatureStore(tmp_path, 2, rank, 3).extract("set", 1, LOOKS, ids(11), work)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = FeatureStore(tmp_path / "alone", 2).extract("set", 1, LOOKS, ids(11), work)
    for one in found.values():
        assert torch.equal(one.tensors["video"], alone.tensors["video"])


NUM = 2000


def _evaluation(folder):
    """Extract 2,000 videos and write a result; every start of a prompt is noted, and its end by its chunk."""
    torch.set_num_threads(1)

    def noted(numbers, looks, place):
        with (folder / "log").open("a") as log:
            log.write("".join(f"p{i}\n" for i in numbers))
        time.sleep(0.004)
        return work(numbers, looks, place)

    found = FeatureStore(folder, 10).extract("set", 1, LOOKS, ids(NUM), noted)
    write_json({"sum": found.tensors["video"].double().sum().item(), "rows": found.rows}, folder / "results.json")


def _finished(folder):
    return {json.loads(row)["id"] for path in folder.glob("set-*/*/*.jsonl") for row in path.read_text().splitlines()}


def _started(folder):
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


def _run(folder, kill_after=None):
    """Return how a process that evaluates into ``folder`` ended; it is killed so long after its first whole chunk."""
    lines = len(_started(folder))
    process = multiprocessing.get_context("fork").Process(target=_evaluation, args=(folder,))
    process.start()
    if kill_after is not None:
        while process.is_alive() and len(_started(folder)) <= lines + 10:  # work to lose, on a busy machine too
            time.sleep(0.005)
        time.sleep(kill_after)
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


@pytest.mark.row(57)
def test_twenty_kills_change_no_byte_and_cost_no_finished_prompt(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert _run(whole) == 0
    draw, endings = random.Random(0), []
    for kill_after in [*(draw.uniform(0, 0.03) for _ in range(20)), None]:
        before, lines = _finished(killed), len(_started(killed))
        endings.append(_run(killed, kill_after))
        assert not before & set(_started(killed)[lines:]), "a finished prompt was made again"
    assert endings == [-signal.SIGKILL] * 20 + [0]
    assert len(before) > 20, "the kills came before any work"
    assert (killed / "results.json").read_bytes() == (whole / "results.json").read_bytes()
