import json
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_mav.checkpoint import export
from lightning_mav.checkpoint.ema import Ema
from lightning_mav.checkpoint.export import export_model, export_pipeline
from lightning_mav.checkpoint.io import write_checkpoint
from lightning_mav.checkpoint.models import describe, load_model, read_model, save_model
from lightning_mav.errors import CheckpointError, ConfigError
from lightning_mav.models.prior import Prior, PriorConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig

TINY = PriorConfig(PriorTransformerConfig(embedding_dim=6, states_dim=5, width=16, num_layers=1, num_heads=2))


@pytest.fixture
def trained(tmp_path):
    """A run of a prior after 1200 steps, and its stage, whose averages are not its weights."""
    stage = nn.Module()
    stage.model = Prior(TINY)
    stage.model.embedding_mean.normal_()
    stage.ema = Ema(stage.model)
    for parameter in stage.model.parameters():
        nn.init.normal_(parameter)
    stage.ema.update(stage.model)
    checkpoint = {"state_dict": stage.state_dict(), "model": describe(stage.model)}
    write_checkpoint(checkpoint, tmp_path / "run" / "checkpoints" / "step=001200.ckpt")
    return tmp_path / "run", stage


def test_averaged_weights_are_exported_unless_raw_ones_are_asked_for(trained, tmp_path):
    run, stage = trained
    export_model(run, tmp_path / "averaged")
    export_model(run, tmp_path / "raw", "raw")
    averaged, raw = (load_file(tmp_path / name / "model.safetensors") for name in ("averaged", "raw"))
    expected = stage.ema.state(stage.model)
    assert set(averaged) == set(raw) == set(expected)
    assert all(torch.equal(averaged[key], value) for key, value in expected.items())
    assert all(torch.equal(raw[key], value) for key, value in stage.model.state_dict().items())
    assert not torch.equal(raw["network.prd_emb"], averaged["network.prd_emb"])


def test_what_is_exported_loads_as_the_run_did(trained, tmp_path):
    run, _ = trained
    export_model(run, tmp_path / "out")
    here, there = load_model(tmp_path / "out"), load_model(run)
    assert here.config == there.config
    assert all(torch.equal(value, there.state_dict()[key]) for key, value in here.state_dict().items())
    assert (tmp_path / "out").stat().st_mode == run.stat().st_mode


def test_a_model_folder_is_exported_byte_for_byte(trained, tmp_path):
    run, _ = trained
    export_model(run, tmp_path / "first")
    export_model(tmp_path / "first", tmp_path / "second")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    with pytest.raises(CheckpointError, match="first: is no run and holds one set of weights; leave out --weights raw"):
        export_model(tmp_path / "first", tmp_path / "third", "raw")


def test_the_card_says_what_is_known(trained, tmp_path):
    run, stage = trained
    export_model(run, tmp_path / "fine")
    card = (tmp_path / "fine" / "README.md").read_text()
    num = sum(parameter.numel() for parameter in stage.model.parameters())
    assert f"| parameters | {num:,} |" in card and "| averaged, after 1,200 training steps |" in card
    assert (
        "width 16, num_layers 1" in card
        and "curriculum_samples 0) |" in card
        and "| embed_space | standardised |" in card
    )
    assert "--prior fine" in card and "license: unknown" in card and str(tmp_path) not in card
    assert len(card.splitlines()) < 60


def test_the_python_of_the_card_runs(trained, tmp_path, monkeypatch):
    run, _ = trained
    export_model(run, tmp_path / "fine")
    code = re.search("```python\n(.*?)```", (tmp_path / "fine" / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    assert isinstance(found["model"], Prior)


def test_what_is_there_already_is_left_alone(trained, tmp_path):
    run, _ = trained
    (tmp_path / "out").mkdir()
    export_model(run, tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="out: is there already and not empty"):
        export_model(run, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(trained, tmp_path, monkeypatch, failure):
    run, _ = trained
    (tmp_path / "prior").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def fail(*_):
        raise failure

    monkeypatch.setattr(export, "pipeline_card", fail)
    with pytest.raises(BaseException, match=r"cannot write .*out|^$"):
        export_pipeline({"prior": run}, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_another_clip_than_our_own_stays_where_it_is(trained, tmp_path):
    run, _ = trained
    facts = export_pipeline({"clip": "open_clip:ViT-L-14:weights.pt", "prior": run}, tmp_path / "out")
    assert [one.model for one in facts] == ["prior"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"prior", "README.md"}
    assert '{"clip": "SPEC"}' in (tmp_path / "out" / "README.md").read_text()


def test_weights_that_do_not_fit_their_configuration_are_not_exported(trained, tmp_path):
    run, _ = trained
    save_model(load_model(run), tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    config["config"]["network"]["width"] = 32
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="weights do not match their configuration"):
        export_model(tmp_path / "odd", tmp_path / "out")
    assert not (tmp_path / "out").exists() and read_model(run)
