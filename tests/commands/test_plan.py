"""``plan``: every configuration that ships, and a cascade whose FLOPs are counted while it really runs."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.models import load_model
from lightning_mav.commands.plan import cascade_rows
from lightning_mav.diffusion.noise import NoiseStream

ROOT = Path(__file__).parents[2]
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/demo/*.yaml")])
UNITS = {"M": 1e6, "MB": 1e6, "GB": 1e9, "GFLOP": 1e9, "TFLOP": 1e12}


def number(cell):
    value, unit = re.match(r"([\d.e+-]+) (\w+)", cell).groups()
    return float(value) * UNITS[unit]


def planned(capsys, *words):
    assert main(["plan", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}


def fewer_layers(path):
    """Layers cost the planner time, whatever their size."""
    network = yaml.safe_load(path.read_text())["model"]["init_args"]["config"]["network"]
    smaller = {"num_layers": 1} if "num_layers" in network else {"num_res_blocks": 1, "channel_mult": [1]}
    return [f"--model.config.network.{k}={v}" for k, v in smaller.items() if "image_channels" not in network]


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS])
def test_every_configuration_is_planned_without_the_files_it_names(path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = planned(capsys, "--config", path, *fewer_layers(path))
    kinds = ["weights", "gradients", "optimizer", "ema", "activations"]
    sizes = [number(rows[kind][0]) for kind in kinds]
    assert all(size > 0 for size in [*sizes, number(rows["FLOPs per step"][0]), number(rows["parameters"][0])])
    assert number(rows["peak memory"][0]) == pytest.approx(sum(sizes), rel=0.01)
    batches = [int(rows[f"largest batch on {capacity} GB"][0]) for capacity in (24, 80, 141)]
    assert 0 < batches[0] < batches[1] < batches[2]
    assert not list(tmp_path.iterdir())


def test_options_of_fit_change_the_plan(capsys):
    words = ["--config", ROOT / "configs/demo/decoder.yaml", "--model.config.network.num_res_blocks=1"]
    plain = planned(capsys, *words)
    changed = planned(capsys, *words, "--data.batch_size=4", "--model.trainable=temporal")
    assert (plain["batch size"], changed["batch size"]) == (["8"], ["4"])
    assert number(changed["optimizer"][0]) < number(plain["optimizer"][0])
    assert number(changed["FLOPs per step"][0]) < 0.55 * number(plain["FLOPs per step"][0])


def test_an_unknown_option_is_one_line(capsys):
    assert main(["plan", "--config", str(ROOT / "configs/demo/decoder.yaml"), "--data.batchsize", "4"]) == 2
    assert "did you mean 'data.batch_size'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def without_weights(pipeline_folder, tmp_path_factory):
    """The pipeline's folder with configurations and no byte of weights."""
    copy = tmp_path_factory.mktemp("configurations")
    for file in pipeline_folder.glob("*/config.json"):
        (copy / file.parent.name).mkdir()
        shutil.copy(file, copy / file.parent.name)
        (copy / file.parent.name / "model.safetensors").touch()
    return copy


@pytest.fixture(scope="module")
def cascade(without_weights):
    rows = cascade_rows(without_weights, "sr_spatial", 3, 2, 2, "float32", "cpu")
    return {row[0]: row[1:] for row in rows}


def test_a_cascade_is_planned_from_its_configurations(cascade, pipeline_folder):
    parts = ["prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial"]
    assert list(cascade) == ["part", *parts, "all"]
    for part in parts:
        parameters = sum(p.numel() for p in load_model(pipeline_folder / part).parameters())
        assert number(cascade[part][3]) == pytest.approx(4 * parameters, rel=0.02, abs=1e4)
    peaks = {part: number(cascade[part][5]) for part in parts}
    largest = max(peaks, key=peaks.get)
    assert cascade["all"][-1] == f"{cascade[largest][5]} ({largest})"


def test_the_flops_of_a_cascade_are_those_of_a_real_one(cascade, pipeline_folder):
    noise = [NoiseStream([torch.Generator(), torch.Generator()]) for _ in range(3)]
    models = {part: load_model(pipeline_folder / part) for part in ("decoder", "interpolation", "sr_spacetime")}
    made = {}
    with FlopCounterMode(display=False) as counter:
        embedding, rate = torch.zeros(2, 8), torch.full((2,), 6.0)
        video = models["decoder"].sample(embedding, noise[0], rate, 3)
        made["decoder"] = counter.get_total_flops()
        video = models["interpolation"].interpolate(video, 2, embedding, rate, noise)
        made["interpolation"] = counter.get_total_flops() - sum(made.values())
        models["sr_spacetime"].sample(video, noise[0])
        made["sr_spacetime"] = counter.get_total_flops() - sum(made.values())
    for part, flops in made.items():
        assert number(cascade[part][2]) == pytest.approx(flops, rel=0.01)


def test_a_missing_part_is_named(without_weights, tmp_path, capsys):
    shutil.copytree(without_weights / "prior", tmp_path / "prior")
    assert main(["plan", "--model", str(tmp_path)]) == 4
    assert "no decoder among the models" in capsys.readouterr().err
    rows = planned(capsys, "--model", tmp_path, "--until", "prior")
    assert sorted(rows) == ["all", "part", "prior"]


def test_sharding_divides_what_does_not_depend_on_the_batch(capsys):
    words = ["--config", ROOT / "configs/demo/decoder.yaml", "--model.config.network.num_res_blocks=1"]
    one = planned(capsys, *words)
    words += ["--trainer", ROOT / "configs/trainer/fsdp2.yaml", "--trainer.devices=4", "--trainer.num_nodes=2"]
    eight = planned(capsys, *words, "--trainer.precision=32-true")
    for kind in ("weights", "optimizer", "ema"):
        assert number(eight[kind][0]) == pytest.approx(number(one[kind][0]) / 8, rel=0.03)
    assert number(eight["gathered"][0]) < number(one["weights"][0])
    kinds = ["weights", "gradients", "optimizer", "ema", "gathered", "activations"]
    assert number(eight["peak memory"][0]) == pytest.approx(sum(number(eight[kind][0]) for kind in kinds), rel=0.01)


def test_sharding_over_an_unknown_number_of_devices_is_not_planned(capsys):
    words = ["--config", ROOT / "configs/demo/decoder.yaml", "--trainer", ROOT / "configs/trainer/fsdp2.yaml"]
    assert main(["plan", *map(str, words)]) == 2
    assert "trainer.devices: auto; give plan the number" in capsys.readouterr().err
