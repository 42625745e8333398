"""Row 54: the checkpoint of one stage in place of another's, for every pair; and plain weights in place of one."""

from itertools import permutations

import pytest
import torch
from safetensors.torch import save_file

from lightning_mav.checkpoint.io import read_checkpoint, write_checkpoint
from lightning_mav.checkpoint.models import describe, load_model
from lightning_mav.errors import CheckpointError
from tests.commands.conftest import models

STAGES = {
    "clip": "ClipStage",
    "prior": "PriorStage",
    "decoder": "DecoderStage",
    "interpolation": "InterpolationStage",
    "sr_spacetime": "SpacetimeSRStage",
    "sr_spatial": "SpatialSRStage",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of every stage, as a run leaves it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, model in models().items():
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        content = {"state_dict": state, "model": describe(model), "stage": STAGES[name], "global_step": 3}
        write_checkpoint(content, folder / f"{name}.ckpt")
    return folder


@pytest.mark.row(54)
@pytest.mark.parametrize(("there", "wanted"), permutations(STAGES, 2))
def test_another_stage_is_named_beside_the_wanted_one(checkpoints, there, wanted):
    path = checkpoints / f"{there}.ckpt"
    said = rf"{there}\.ckpt: is a checkpoint of stage {STAGES[there]}, expected {STAGES[wanted]}"
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path, STAGES[wanted])
    with pytest.raises(CheckpointError, match=rf"{there}\.ckpt: holds the model {there}, expected {wanted}"):
        load_model(path, wanted)
    assert load_model(path, there).name == there


@pytest.mark.row(54)
@pytest.mark.parametrize("kind", ["state dict", "safetensors", "whole module"])
def test_plain_weights_are_no_checkpoint(fit_command, refused, tmp_path, kind):
    path = tmp_path / "weights.ckpt"
    network = torch.nn.Linear(2, 2)
    if kind == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network if kind == "whole module" else network.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"weights\.ckpt"):
        read_checkpoint(path)


@pytest.mark.row(54)
@pytest.mark.full
@pytest.mark.parametrize("there", [name for name in STAGES if name != "decoder"])
def test_every_command_refuses_another_stage(checkpoints, fit_command, pipeline_folder, refused, tmp_path, there):
    path = checkpoints / f"{there}.ckpt"
    words = fit_command(tmp_path / "run", "--ckpt_path", path)
    for verb in ("fit", "validate", "predict"):
        refused([verb, *words[1:]], 4, f"is a checkpoint of stage {STAGES[there]}, expected DecoderStage")
    words = ["generate", "--model", pipeline_folder, "--prompt", "a ring", "--out", tmp_path / "a.mp4"]
    refused([*words, "--decoder", path], 4, f"holds the model {there}, expected decoder")
