import json
import re
from functools import partial

import pytest
import yaml

from eval.__main__ import CONFIGS, main
from eval.looks import Looks
from eval.moving_shapes import PARTS, MovingShapes
from eval.results import as_json
from eval.store import Store
from eval.systems import MakeAVideoSystem
from eval.video_classifier import Training
from lightning_mav.errors import CheckpointError, ConfigError

BARS = {"real": {"strict_law": ">= 0.98"}, "interpolation": {"input_channels": "== 7", "given_frames_error": "== 0"}}


STAGES = [part for part in PARTS if part != "distances"]
DISTANCES = {(part, name) for part in ("real", "decoder", "control") for name in ("fvd", "clip_fid", "clipsim")}
DISTANCES |= {("real", "fvd_over_error"), ("control", "fvd_gap_over_error")}


def benchmark(parts=STAGES, num_prompts=3):
    return MovingShapes(num_prompts=num_prompts, num_references=1, chunk=2, gallery=2, parts=parts, bars=BARS)


@pytest.fixture(scope="module")
def found(tiny_pipeline, tmp_path_factory):
    system = MakeAVideoSystem(str(tiny_pipeline))
    measures, sets = benchmark().evaluate(system, tmp_path_factory.mktemp("out"), seed=0)
    return {(m.part, m.name): m for m in measures}, sets


def test_every_part_is_measured_and_every_bar_has_its_measure(found):
    measures, sets = found
    for name in ("moving_shapes", "moving_shapes_full"):
        bars = yaml.safe_load((CONFIGS / "benchmark" / f"{name}.yaml").read_text())["bars"]
        assert {(part, one) for part, own in bars.items() for one in own} <= set(measures) | DISTANCES
    assert measures["real", "strict_law"].passed and measures["real", "strict_law"].n == 3
    assert measures["interpolation", "input_channels"].value == 7
    assert measures["interpolation", "given_frames_error"].passed
    assert measures["interpolation", "lengths_right"].value == 1
    assert measures["sr_spatial", "gain"].unit == "dB" and measures["sr_spatial", "gain"].passed is None
    assert len(list(sets["final"].folder.glob("*.webp"))) == 2


def test_sets_are_compared_as_wholes(tiny_pipeline, tmp_path, monkeypatch):
    briefly = partial(Looks, training=Training(steps=2))
    monkeypatch.setattr("eval.moving_shapes.Looks", briefly)
    system = MakeAVideoSystem(str(tiny_pipeline))
    found, sets = benchmark(["distances"], num_prompts=40).evaluate(system, tmp_path, seed=0)
    measures = {(m.part, m.name): m for m in found}
    assert set(measures) >= DISTANCES
    assert measures["real", "fvd"].error > 0 and measures["real", "clipsim"].n == 40
    assert measures["control", "fvd"].value == measures["decoder", "fvd"].value  # neither has seen a video
    assert measures["control", "fvd_gap_over_error"].value == 0
    brief = as_json({}, found, sets, tmp_path)["sets"]["control"]["rows"][0]
    assert "clip_similarity" in brief and "features" not in brief


def test_untrained_decoder_equals_its_control(found):
    measures, _ = found
    assert measures["decoder", "text_faithful"].value == measures["control", "text_faithful"].value


def test_stored_work_is_not_done_again(tiny_pipeline, tmp_path, monkeypatch):
    only_decoder = benchmark(["decoder"])
    system = MakeAVideoSystem(str(tiny_pipeline))
    first, _ = only_decoder.evaluate(system, tmp_path, seed=0)
    monkeypatch.setattr(system, "run", None)
    again, _ = only_decoder.evaluate(system, tmp_path, seed=0)
    assert first == again
    with pytest.raises(TypeError):
        only_decoder.evaluate(system, tmp_path, seed=1)


def test_results_do_not_depend_on_the_chunk(tiny_pipeline, tmp_path):
    system = MakeAVideoSystem(str(tiny_pipeline))
    rows = []
    for chunk in (1, 3):
        benchmark = MovingShapes(3, 1, chunk, 0, ["decoder"], {})
        rows.append(benchmark.evaluate(system, tmp_path / str(chunk), 0)[1]["decoder_16fps"].rows)
    for one, other in zip(*rows, strict=True):
        assert one["frame_difference"] == pytest.approx(other["frame_difference"], rel=1e-2)


def test_a_killed_store_continues(tmp_path):
    done, killed = [], []

    def work(ids, folder):
        if ids[0] == 4 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        done.extend(ids)
        return [{"id": i} for i in ids]

    store = Store(tmp_path, chunk=2)
    with pytest.raises(KeyboardInterrupt):
        store.rows("work", ["key"], 5, work)
    rows = Store(tmp_path, chunk=2).rows("work", ["key"], 5, work)
    assert done == [0, 1, 2, 3, 4]
    assert [row["id"] for row in rows.rows] == [0, 1, 2, 3, 4]


def test_wrong_settings_are_named(tiny_pipeline, tmp_path):
    with pytest.raises(ConfigError, match="'decoders' is none of"):
        MovingShapes(1, 1, 1, 1, ["decoders"], {})
    with pytest.raises(CheckpointError, match="is one model"):
        MakeAVideoSystem(str(tiny_pipeline / "prior"))
    system = MakeAVideoSystem(str(tiny_pipeline), image_decoder="nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        MovingShapes(1, 1, 1, 1, ["control"], {}).evaluate(system, tmp_path, 0)


def test_command_writes_results_and_a_self_contained_report(tiny_pipeline, tmp_path, monkeypatch, capsys):
    small = ["benchmark.num_prompts=2", "benchmark.num_references=1", "benchmark.parts=[references,decoder]"]
    monkeypatch.setattr("sys.argv", ["eval", f"system.model={tiny_pipeline}", f"out={tmp_path / 'out'}", *small])
    assert main() == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {m["part"] for m in results["measures"]} == {"real", "still", "jittered", "wrong_motion", "decoder"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "$" not in re.sub(r"data:[^\"]*", "", page)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["system.model=/nowhere"], 4, "/nowhere"),
        (["sytem.model=x"], 2, "sytem"),
        (["benchmark=moving"], 2, "benchmark/moving"),
        ([], 2, "system.model"),
    ],
)
def test_mistakes_end_in_one_line(words, code, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["eval", *words])
    assert main() == code
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1
