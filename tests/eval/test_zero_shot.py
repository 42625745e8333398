"""Whole benchmarks on small data with random networks: what is refused, what is resumed, what is printed."""

import json
import re
from dataclasses import replace

import pytest
import torch

from eval.__main__ import main
from eval.benchmarks import MsrVtt, Ucf101
from eval.clips import random_clip
from eval.folders import Folder, RealSet
from eval.protocols import FOLDER, preset
from eval.ucf101 import class_names
from eval.zero_shot import ZeroShot
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.media import write_video
from lightning_mav.metrics.random_extractor import random_extractor
from lightning_mav.seeding import generator

PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "none")
NUM = 44
EXTRACTORS = {
    "i3d": lambda: random_extractor(8, 16),
    "i3d_torchscript": lambda: random_extractor(8, 16),
    "c3d": lambda: random_extractor(11, 16, seed=1),
    "c3d_torchscript": lambda: random_extractor(11, 16, seed=1),
    "inception": lambda: random_extractor(8, 16, seed=2),
    "clip_vit_b32": random_clip,
    "clip_vit_b16": lambda: random_clip(1),
}


def clip_of(key):
    """A small video whose frames differ."""
    coarse = torch.rand(3, 18, 4, 4, generator=generator("clip", key))
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="nearest") * 2 - 1


class Made:
    """A system that makes noise from seed and id, and counts what it makes."""

    def __init__(self):
        self.made = []

    def generate(self, prompts, fps, frames, seed):
        self.made += [prompt.id for prompt in prompts]
        return [clip_of((seed, prompt.id))[:, :frames] for prompt in prompts]

    def fingerprint(self):
        return ["made"]


@pytest.fixture(scope="module")
def msrvtt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("msrvtt")
    captions = {f"video{7010 + i}": {str(2 * i): f"a man {i}", str(2 * i + 1): f"a dog {i}"} for i in range(NUM)}
    (folder / "test.json").write_text(json.dumps(captions))
    for name in captions:
        write_video(clip_of(name), folder / f"{name}.mp4", 25)
    return MsrVtt(str(folder / "test.json"), str(folder))


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ucf101")
    names = [f"{name}/v_{name}_g01_c01.avi" for name in class_names()[:NUM]]
    for split in ("train", "test"):
        (folder / f"{split}list01.txt").write_text("".join(f"{name}\n" for name in names))
    for name in names:
        write_video(clip_of(name), (folder / name.split("/")[1]).with_suffix(".mp4"), 25)
    for path in folder.glob("*.mp4"):
        path.rename(path.with_suffix(".avi"))
    return Ucf101(str(folder), str(folder))


def small(name):
    """A preset for videos of 16 pixels that last less than a second."""
    protocol = preset(name)
    return replace(protocol, size=None if protocol.size is None else (16, 16), fps=None)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_on_small_data(name, msrvtt, ucf101, tmp_path):
    data = msrvtt if name.startswith("msrvtt") else ucf101
    protocol = small(name)
    found = ZeroShot(data, protocol, EXTRACTORS, limit=NUM).evaluate(Made(), tmp_path, 0)[0]
    assert set(found["scores"]) == set(protocol.metrics)
    for one in found["scores"].values():
        assert one["value"] == one["value"] and 0 < one["n"] <= NUM


def run(data, name="msrvtt_modelscope", out=None, system=None, seed=0, **options):
    return ZeroShot(data, small(name), EXTRACTORS, limit=NUM, **options).evaluate(system or Made(), out, seed)[0]


def test_results_do_not_depend_on_the_chunk_and_nothing_is_made_twice(msrvtt, tmp_path):
    system = Made()
    first = run(msrvtt, out=tmp_path / "a", system=system, chunk=16)
    assert run(msrvtt, out=tmp_path / "a", system=system, chunk=16) == first
    assert len(system.made) == NUM == len(set(system.made))
    assert run(msrvtt, out=tmp_path / "b", chunk=5) == first
    assert run(msrvtt, out=tmp_path / "a", seed=1)["scores"] != first["scores"]


def test_other_metrics_and_fewer_prompts_take_what_is_stored(msrvtt, tmp_path):
    system, store = Made(), str(tmp_path / "store")
    clipsim = {"clipsim": preset("msrvtt_modelscope").metrics["clipsim"]}

    def evaluate(metrics, limit):
        protocol = replace(small("msrvtt_modelscope"), metrics=metrics)
        benchmark = ZeroShot(msrvtt, protocol, EXTRACTORS, limit=limit, store=store)
        return benchmark.evaluate(system, tmp_path / str(limit), 0)[0]["scores"]

    whole = evaluate(preset("msrvtt_modelscope").metrics, NUM)
    assert len(system.made) == NUM
    assert evaluate(clipsim, NUM)["clipsim"] == whole["clipsim"]
    assert evaluate(clipsim, NUM // 2)["clipsim"]["n"] == NUM // 2
    assert len(system.made) == NUM


def test_a_network_more_makes_the_videos_again_and_looks_at_them_alone(msrvtt, tmp_path):
    system, metrics = Made(), preset("msrvtt_modelscope").metrics
    for chosen in ({"clipsim": metrics["clipsim"]}, metrics, metrics):
        protocol = replace(small("msrvtt_modelscope"), metrics=chosen)
        ZeroShot(msrvtt, protocol, EXTRACTORS, limit=NUM).evaluate(system, tmp_path, 0)
    assert len(system.made) == 2 * NUM
    assert len(list(tmp_path.glob("store/generated-*/clip*"))) == 1


def test_kept_videos_serve_other_networks_and_protocols_alike(msrvtt, tmp_path):
    system, found = Made(), {}
    for keep in (True, False):
        for size in ((16, 16), (12, 12)):
            protocol = replace(small("msrvtt_modelscope"), size=size)
            benchmark = ZeroShot(msrvtt, protocol, EXTRACTORS, limit=NUM, keep_videos=keep)
            found[keep, size] = benchmark.evaluate(system, tmp_path / str(keep), 0)[0]["scores"]
    assert len(system.made) == 3 * NUM  # once kept, twice not
    assert all(found[True, size] == found[False, size] for _, size in found)


def test_real_videos_stand_within_three_errors_of_themselves(ucf101, tmp_path):
    protocol = replace(small("fvd2048_16f"), real_window="first")
    found = ZeroShot(ucf101, protocol, EXTRACTORS, limit=NUM).evaluate(RealSet(), tmp_path, 0)[0]["scores"]["fvd"]
    assert abs(found["corrected"]) <= 3 * found["corrected_error"] and found["value"] < 1e-6


@pytest.mark.row(58)
def test_too_few_prompts_are_found_out_before_any_video_is_made(msrvtt, tmp_path):
    system = Made()
    with pytest.raises(DataError, match=r"88 prompts, but protocol msrvtt_modelscope takes 2048 videos"):
        ZeroShot(msrvtt, small("msrvtt_modelscope"), EXTRACTORS).evaluate(system, tmp_path, 0)
    assert not system.made


def folder_of(path, msrvtt):
    path.mkdir()
    for prompt in ZeroShot(msrvtt, small("msrvtt_mav"), EXTRACTORS, limit=NUM)._some(
        msrvtt.prompts(preset("msrvtt_mav"), 0)
    ):
        write_video(clip_of((0, prompt.id)), path / f"{prompt.id}.mp4", 30)
    return sorted(path.glob("*.mp4"))


def test_bad_videos_are_named_counted_and_refused_unless_a_limit_allows_them(msrvtt, tmp_path):
    files = folder_of(tmp_path / "videos", msrvtt)
    files[3].write_bytes(files[3].read_bytes()[:300])
    write_video(clip_of(1)[:, :5], files[20], 30)
    only = {"out": tmp_path / "out", "name": "msrvtt_mav"}
    with pytest.raises(DataError, match=rf"^1 videos cannot be used \({re.escape(files[3].stem)}\).*on_error=skip"):
        run(msrvtt, system=Folder(str(tmp_path / "videos")), **only)
    with pytest.raises(DataError, match=r"^2 videos cannot be used"):
        run(msrvtt, system=Folder(str(tmp_path / "videos")), **only, on_error="skip", max_errors=1)
    found = run(msrvtt, system=Folder(str(tmp_path / "videos")), **only, on_error="skip", max_errors=2)
    assert [row["id"] for row in found["skipped"]] == [files[3].stem, files[20].stem]
    assert found["scores"]["clipsim"]["n"] == NUM - 2
    with pytest.raises(ConfigError, match=r"needs a limit; set benchmark.max_errors"):
        run(msrvtt, **only, on_error="skip")


@pytest.mark.row(30, 58)
def test_missing_and_double_videos_are_named(msrvtt, tmp_path):
    files = folder_of(tmp_path / "videos", msrvtt)
    files[0].unlink()
    (tmp_path / "videos" / "again").mkdir()
    (tmp_path / "videos" / "again" / files[1].name).write_bytes(files[1].read_bytes())
    system = Folder(str(tmp_path / "videos"))
    with pytest.raises(DataError, match=rf"2 videos cannot be used .*no video of prompt {re.escape(files[0].stem)}"):
        run(msrvtt, "msrvtt_mav", tmp_path / "out", system)
    with pytest.raises(DataError, match=r"no such folder; system.path wants one"):
        Folder(str(tmp_path / "nowhere"))


def test_real_videos_that_are_missing_are_asked_for(msrvtt, tmp_path):
    with pytest.raises(DataError, match=r"fvd, fid_vid: needs real videos; set benchmark.data.videos"):
        run(replace(msrvtt, videos=None), out=tmp_path)
    found = ZeroShot(
        replace(msrvtt, videos=None),
        replace(small("msrvtt_mav"), metrics={"clipsim": preset("msrvtt_mav").metrics["clipsim"]}),
        EXTRACTORS,
        limit=4,
    )
    assert found.evaluate(Made(), tmp_path, 0)[0]["scores"]["clipsim"]["n"] == 4
    with pytest.raises(DataError, match=r"no such folder; benchmark.data.videos wants"):
        run(replace(msrvtt, videos=str(tmp_path / "nowhere")), out=tmp_path)
    with pytest.raises(ConfigError, match=r"protocol: none is chosen"):
        ZeroShot(msrvtt, None, EXTRACTORS).evaluate(Made(), tmp_path, 0)


def test_command_on_a_folder_writes_everything_and_says_why_nothing_is_comparable(
    msrvtt, tmp_path, monkeypatch, capsys
):
    folder_of(tmp_path / "videos", msrvtt)
    words = [
        "benchmark=msrvtt", "system=folder", f"system.path={tmp_path / 'videos'}", "extractor=random",
        f"benchmark.data.captions={msrvtt.captions}", f"benchmark.data.videos={msrvtt.videos}",
        f"benchmark.limit={NUM}", "protocol.size=[16,16]",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["eval", *words])
    assert main() == 0
    out = tmp_path / "videos" / "eval" / "msrvtt_mav"
    results = json.loads((out / "results.json").read_text())
    assert results["changes"] == ["size", "random network for clip_vit_b32", "random network for inception"]
    assert set(results["scores"]) == {"clipsim", "fid", "clip_fid"}
    assert json.loads((out / "run.json").read_text())["versions"]["commit"]
    page = (out / "report.html").read_text()
    assert "Make-A-Video" in page and "the protocol was changed: size" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "$" not in re.sub(r"data:[^\"]*", "", page)
    before = (out / "results.json").read_bytes()
    assert main() == 0 and (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["benchmark=msrvtt", "system=real"], 2, "benchmark.data.captions"),
        (["benchmark=ucf101", "protocol=nuwa"], 2, "protocol/nuwa"),
        (["benchmark=msrvtt", "benchmark.data.captions=none.json", "system=real"], 3, "benchmark.data.videos"),
        (["benchmark=ucf101", "protocol=msrvtt_mav", "benchmark.data.lists=x", "system=real"], 2, "is one of msrvtt"),
        (["benchmark=ucf101", "benchmark.data.lists=nowhere", "system=real", "metric=clipsim"], 2, "has no 'clipsim'"),
    ],
)
def test_mistakes_end_in_one_line(words, code, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["eval", *words])
    assert main() == code
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1
