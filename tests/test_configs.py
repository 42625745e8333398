"""Every training configuration that ships runs, with one tiny overlay, from the run that it names to start from."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from lightning_mav import stages
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.models import load_model
from lightning_mav.checkpoint.resolve import newest_checkpoint, step_of

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/demo/*.yaml")])
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


def overlay(config):
    """The command-line options that make a configuration tiny; what it trains and how stays."""
    stage = re.search(r"(\w+)Stage$", config["model"]["class_path"])[1]
    scale = config["model"]["init_args"]["config"].get("scale", 4)
    frames = 1 if config["data"]["init_args"].get("frames") == 1 else 6
    sizes = {"frames": frames, "size": 8 * scale, "crop": 4 * scale}
    groups = {"trainer": TRAINER, "data": DATA}
    groups = [*groups.items(), *TINY[stage].items()]
    return [f"--{group}.{option}".format(**sizes) for group, options in groups for option in options]


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """A function that fits one configuration, after those whose runs it names, and returns its run folder."""
    folder = tmp_path_factory.mktemp("runs")
    by_run = {run: path for path, run in RUN_OF.items()}

    @cache
    def fitted(path):
        config = yaml.safe_load(path.read_text())
        options = overlay(config)
        if "clip" in config["data"]["init_args"]:
            options.append(f"--data.clip={fitted(by_run['runs/demo/clip'])}")
        if start := config["model"]["init_args"].get("init_from"):
            options.append(f"--model.init_from={fitted(by_run[start])}")
        run = folder / RUN_OF[path]
        assert main(["fit", "--config", str(path), "--run", str(run), *options]) == 0
        return run

    return fitted


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_every_configuration_runs(fit, path):
    run = fit(path)
    assert step_of(newest_checkpoint(run).resolve()) == 2
    name = yaml.safe_load(path.read_text())["model"]["class_path"].rpartition(".")[2]
    assert type(load_model(run)).__name__ == name.removesuffix("Stage")


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
    pairs = [yaml.safe_load(path.read_text()) for path in CONFIGS]
    used = {(pair["model"]["class_path"], pair["data"]["class_path"]) for pair in pairs}
    assert (f"lightning_mav.stages.{name}Stage", f"lightning_mav.stages.{name}DataModule") in used


def test_configurations_name_our_callbacks():
    listed = [yaml.safe_load(path.read_text())["trainer"].get("callbacks", []) for path in CONFIGS]
    named = {callback["class_path"] for callbacks in listed for callback in callbacks}
    assert {"callbacks.throughput.Throughput", "callbacks.sample_grid.SampleGrid"} <= named


def test_a_header_tells_how_to_start_the_run_and_what_to_expect():
    for path in CONFIGS:
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        command = f"# python -m lightning_mav fit --config {path.relative_to(ROOT)}"
        assert any(line.startswith(command) for line in header), path
        assert any(line.startswith("# Expect:") for line in header), path
