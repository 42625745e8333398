"""Every training configuration that ships runs, with one tiny overlay, from the run that it names to start from."""

import re
from functools import cache, reduce
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from lightning_mav import models, stages
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.config import from_plain
from lightning_mav.checkpoint.models import load_model
from lightning_mav.checkpoint.resolve import newest_checkpoint, step_of

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/demo/*.yaml")])
FAMILIES = sorted(path for family in ("karlo", "glide", "paper") for path in ROOT.glob(f"configs/{family}/*.yaml"))
CONFIGS += FAMILIES
PAPER = {"prior": 1.3, "decoder_video": 3.1, "interpolation": 3.1, "sr_spacetime_video": 1.4, "sr_spatial": 0.7}
RUN_OF = {path: re.search(r"--run (\S+)", path.read_text())[1] for path in CONFIGS}
OVERLAYS = sorted(ROOT.glob("configs/demo/full/*.yaml"))
NAMES = [str(path.relative_to(ROOT / "configs")) for path in CONFIGS]

TRAINER = ["accelerator=cpu", "max_steps=2", "val_check_interval=2", "check_val_every_n_epoch=null"]
TRAINER += ["enable_progress_bar=false", "enable_model_summary=false", "limit_test_batches=1"]
DATA = ["source=moving_shapes", "batch_size=2", "num_workers=0", "val_samples=2"]
UNET = ["channels=8", "channel_mult=[1]", "num_res_blocks=1", "head_channels=8", "norm_groups=4"]
DECODER = {
    "data": ["size=8", "frames={frames}"],
    "model.config": ["image_size=8", "sampling.steps=2"],
    "model.config.network": [*UNET, "attention_downsamples=[1]", "image_embedding_dim=8", "context_dim=8"],
}
SUPER_RESOLUTION = {
    "data": ["size={size}", "crop={crop}"],
    "model.config": ["sampling.steps=2"],
    "model.config.network": UNET,
}
TINY = {
    "Clip": {
        "data": ["size=16"],
        "model.config.network": [
            "embedding_dim=8",
            "image_size=16",
            "image_channels=[8]",
            "text_width=8",
            "text_heads=1",
        ],
    },
    "Prior": {
        "data": ["size=16", "statistics_samples=2", "gallery=8"],
        "model.config": ["sampling.steps=2"],
        "model.config.network": ["embedding_dim=8", "states_dim=8", "width=16", "num_layers=1", "num_heads=2"],
    },
    "Decoder": DECODER,
    "Interpolation": DECODER,
    "SpacetimeSR": SUPER_RESOLUTION,
    "SpatialSR": SUPER_RESOLUTION,
}


def files_of(path):
    """A configuration, after the one that it lies over."""
    return [ROOT / "configs" / path.name, path] if path in FAMILIES else [path]


def merged(old, new):
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {key: merged(old.get(key), new[key]) if key in new else old[key] for key in [*old, *new]}


def read(path):
    return reduce(merged, [yaml.safe_load(file.read_text()) for file in files_of(path)])


def overlay(config):
    """The command-line options that make a configuration tiny; what it trains and how stays."""
    stage = re.search(r"(\w+)Stage$", config["model"]["class_path"])[1]
    scale = config["model"]["init_args"]["config"].get("scale", 4)
    frames = 1 if config["data"]["init_args"].get("frames") == 1 else 6
    sizes = {"frames": frames, "size": 8 * scale, "crop": 4 * scale}
    groups = {"trainer": TRAINER, "data": DATA}
    groups = [*groups.items(), *TINY[stage].items(), ("model.config.network", tiny_text(config))]
    return [f"--{group}.{option}".format(**sizes) for group, options in groups for option in options]


def tiny_text(config):
    network = config["model"]["init_args"]["config"].get("network", {})
    if "text_encoder" in network:
        sizes = ("width=8", "num_layers=1", "num_heads=1", "num_tokens=4", "vocabulary=8")
        return ["context_dim=8", "attention_downsamples=[1]", *(f"text_encoder.{size}" for size in sizes)]
    return ["text_dim=8"] if "text_dim" in network else []


def published(config):
    """What makes of a configuration the image model that stands for converted weights."""
    network = config["model"]["init_args"]["config"].get("network", {})
    args, data = {"init_from": None, "trainable": "all"}, {}
    if network.get("temporal") is not None:
        args["config"], data = {"network": {"temporal": None, "fps": False}}, {"frames": 1}
    elif "text_encoder" in network:
        args["config"] = {"network": {"image_embedding_dim": None}}
    return yaml.safe_dump({"model": {"init_args": args}, "data": {"init_args": data}})


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """A function that fits one configuration, after those whose runs it names, and returns its run folder."""
    folder = tmp_path_factory.mktemp("runs")
    by_run = {run: path for path, run in RUN_OF.items()}

    @cache
    def fitted(path, as_published=False):
        config = read(path)
        options = overlay(config)
        if "clip" in config["data"]["init_args"]:
            options.append(f"--data.clip={fitted(by_run['runs/demo/clip'])}")
        start, run = config["model"]["init_args"].get("init_from"), folder / RUN_OF[path]
        files = files_of(path)
        if as_published:
            run = run.with_suffix(".published")
            files.append(folder / f"{path.parent.name}_{path.name}")
            files[-1].write_text(published(config))
            options = [option for option in options if re.search(r"(\w+)=", option)[1] not in files[-1].read_text()]
        elif start:
            source = fitted(path, True) if start.startswith("models/") else fitted(by_run[start])
            options.append(f"--model.init_from={source}")
        configs = [option for file in files for option in ("--config", str(file))]
        assert main(["fit", *configs, "--run", str(run), *options]) == 0
        return run

    return fitted


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_every_configuration_runs(fit, path):
    run = fit(path)
    assert step_of(newest_checkpoint(run).resolve()) == 2
    name = read(path)["model"]["class_path"].rpartition(".")[2]
    assert type(load_model(run)).__name__ == name.removesuffix("Stage")


@pytest.mark.parametrize(("name", "billions"), PAPER.items())
def test_the_papers_networks_have_the_papers_number_of_parameters(name, billions, capsys):
    files = files_of(ROOT / "configs" / "paper" / f"{name}.yaml")
    assert main(["fit", *(f"--config={file}" for file in files), "--run=unused", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model = getattr(models, re.search(r"(\w+)Stage$", config["model"]["class_path"])[1])
    with torch.device("meta"):
        network = model(from_plain(model.config_class, config["model"]["init_args"]["config"])).network
    assert sum(weight.numel() for weight in network.parameters()) / 1e9 == pytest.approx(billions, rel=0.05)


@pytest.mark.parametrize("path", OVERLAYS, ids=[path.stem for path in OVERLAYS])
def test_every_overlay_fits_its_configuration(path, tmp_path):
    base = path.parents[1] / path.name
    assert main(["fit", "--config", str(base), "--config", str(path), "--run", str(tmp_path), "--print_config"]) == 0


@pytest.mark.parametrize("name", ["clip", "prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial"])
def test_every_stage_is_judged_and_samples(fit, name, capsys):
    run = fit(ROOT / "configs" / "demo" / f"{name}.yaml")
    assert main(["test", "--run", str(run)]) == 0
    assert "test/" in capsys.readouterr().out
    assert main(["predict", "--run", str(run)]) == 0


@pytest.mark.parametrize("name", TINY)
def test_every_stage_has_its_own_module_and_data_module(name):
    module, data = getattr(stages, f"{name}Stage"), getattr(stages, f"{name}DataModule")
    assert issubclass(module, LightningModule) and issubclass(data, LightningDataModule)
    assert module.__module__ == data.__module__
    pairs = [read(path) for path in CONFIGS]
    used = {(pair["model"]["class_path"], pair["data"]["class_path"]) for pair in pairs}
    assert (f"lightning_mav.stages.{name}Stage", f"lightning_mav.stages.{name}DataModule") in used


def test_configurations_name_our_callbacks():
    listed = [read(path)["trainer"].get("callbacks", []) for path in CONFIGS]
    named = {callback["class_path"] for callbacks in listed for callback in callbacks}
    assert {"callbacks.throughput.Throughput", "callbacks.sample_grid.SampleGrid"} <= named


def test_a_header_tells_how_to_start_the_run_and_what_to_expect():
    for path in CONFIGS:
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        configs = " ".join(f"--config {file.relative_to(ROOT)}" for file in files_of(path))
        command = f"# python -m lightning_mav fit {configs}"
        assert any(line.startswith(command) for line in header), path
        assert any(line.startswith("# Expect:") for line in header), path
