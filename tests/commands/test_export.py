"""The command on a whole pipeline, and what it refuses, in one line each."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.__main__ import main
from lightning_mav.checkpoint import convert
from lightning_mav.checkpoint.families import FAMILIES
from lightning_mav.checkpoint.models import save_model
from lightning_mav.models import MODELS
from lightning_mav.pipeline import PARTS, MakeAVideo


def export(model, out, *options):
    return main(["export", "--model", str(model), "--out", str(out), *options])


def test_videos_of_the_exported_pipeline_are_the_same_bits(pipeline_folder, tmp_path, capsys):
    assert export(pipeline_folder, tmp_path / "models" / "demo") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(str(tmp_path / "models" / "demo") in line for line in lines)
    made = [
        MakeAVideo.from_pretrained(folder, precision="float32").generate(["a red ring"], frames=2, frame_skip=2)
        for folder in (pipeline_folder, tmp_path / "models" / "demo")
    ]
    assert made[0].shape == (1, 3, 3, 32, 32) and torch.equal(*made)
    cards = {path.parent.name for path in (tmp_path / "models").rglob("README.md")}
    assert cards == {"demo", "clip", *PARTS}


def test_save_pretrained_is_read_by_from_pretrained(pipeline_folder, tmp_path):
    before = MakeAVideo.from_pretrained(pipeline_folder, batch_size=2)
    before.save_pretrained(tmp_path / "saved")
    after = MakeAVideo.from_pretrained(tmp_path / "saved")
    assert set(after.paths) == {"clip", *PARTS}
    for part in ("clip", *PARTS):
        ours, theirs = (load_file(one.paths[part] / "model.safetensors") for one in (after, before))
        assert set(ours) == set(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_one_model_is_exported_alone(pipeline_folder, tmp_path, capsys):
    assert export(pipeline_folder / "decoder", tmp_path / "decoder") == 0
    assert "decoder: 0." in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "decoder").iterdir()} == {"config.json", "model.safetensors", "README.md"}


def karlo(family):
    """A family of Karlo's shape, as small as it comes."""
    small = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 4, "norm_groups": 4}
    sizes = {
        "decoder": {**small, "image_embedding_dim": 12, "text_dim": 12, "context_dim": 24},
        "prior": {"embedding_dim": 12, "states_dim": 12, "width": 16, "num_layers": 2, "num_heads": 2},
        "sr_spacetime": small,
    }
    network = replace(family.config.network, **sizes[family.model])
    return replace(family, config=replace(family.config, network=network))


def test_diffusers_folders_are_converted_back_bit_by_bit(tmp_path, monkeypatch, pipeline_folder):
    families = [karlo(family) for family in FAMILIES[:3]]
    shutil.copytree(pipeline_folder / "sr_spatial", tmp_path / "models" / "sr_spatial")
    for family in families:
        model = MODELS[family.model](family.config)
        for value in model.state_dict().values():
            value.normal_()
        save_model(model, tmp_path / "models" / family.model)
    assert export(tmp_path / "models", tmp_path / "out", "--layout", "diffusers") == 0
    folders = ["decoder", "text_proj", "prior", "super_res_first"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*folders, "README.md"])
    for folder in folders:
        files = {path.name for path in (tmp_path / "out" / folder).iterdir()}
        assert files == {"config.json", "diffusion_pytorch_model.safetensors"}

    read = convert.convert_sources
    monkeypatch.setattr(convert, "convert_sources", lambda sources: read(sources, families))
    sources = [str(tmp_path / "out" / folder) for folder in folders]
    assert main(["convert", "--source", *sources, "--out", str(tmp_path / "back")]) == 0
    for family in families:
        for file in ("model.safetensors", "config.json"):
            written, before = (tmp_path / place / family.model / file for place in ("back", "models"))
            assert written.read_bytes() == before.read_bytes()


@pytest.mark.parametrize(
    ("model", "options", "code", "said"),
    [
        ("{pipeline}/decoder", ["--layout", "diffusers"], 4, "network.text_dim is None, Karlo's is 768"),
        ("{pipeline}/interpolation", ["--layout", "diffusers"], 4, "the model is interpolation, not "),
        ("{pipeline}", ["--weights", "raw"], 4, "is no run and holds one set of weights; leave out --weights raw"),
        ("{pipeline}", ["--out", "{tmp}"], 2, "is there already and not empty"),
        ("{pipeline}", ["--out", "{tmp}/file/a"], 5, "cannot write"),
        ("{tmp}/none", [], 4, "none: no such file or folder"),
        ("{tmp}", [], 4, "holds no model"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(pipeline_folder, tmp_path, capsys, model, options, code, said):
    (tmp_path / "file").touch()
    model, *options = (text.format(tmp=tmp_path, pipeline=pipeline_folder) for text in (model, *options))
    assert export(model, tmp_path / "out", *options) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert os.listdir(tmp_path) == ["file"]
