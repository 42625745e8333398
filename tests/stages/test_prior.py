"""The prior's stage, and the road from a small CLIP through the command line to a prior that samples."""

import pytest
import torch

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, save_model
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.stages.prior import PriorDataModule, PriorStage

PRIOR = PriorTransformerConfig(embedding_dim=8, states_dim=16, width=16, num_layers=1, num_heads=2)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    save_model(Clip(ClipConfig(SmallClipConfig(8, 16, (8, 16), text_width=16, text_heads=2))), folder)
    return folder


def fit(clip_folder, folder, *options):
    """Train a prior for two steps."""
    network = "{embedding_dim: 8, states_dim: 16, width: 16, num_layers: 1, num_heads: 2}"
    tiny = ["--data.size", "16", "--data.batch_size", "4", "--data.val_samples", "8", "--data.clip", str(clip_folder)]
    tiny += ["--data.statistics_samples", "16", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    config = ["--config", "configs/demo/prior.yaml", "--model.config.network", network]
    tiny += ["--trainer.enable_progress_bar", "false", *options]
    assert main(["fit", *config, *tiny, "--run", str(folder)]) in (None, 0)
    return folder


@pytest.fixture(scope="module")
def run(clip_folder, tmp_path_factory):
    return fit(clip_folder, tmp_path_factory.mktemp("prior"))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_prior_trains_and_samples_in_one_precision(clip_folder, tmp_path, precision):
    fit(clip_folder, tmp_path, "--trainer.precision", precision)
    assert main(["test", "--run", str(tmp_path)]) in (None, 0)
    assert main(["predict", "--run", str(tmp_path)]) in (None, 0)


def batch_of(clip_folder, captions):
    data = PriorDataModule(str(clip_folder), size=16)
    data.setup("fit")
    return data.on_after_batch_transfer({"image": torch.rand(len(captions), 3, 16, 16), "caption": captions}, 0)


def test_a_dropped_text_becomes_the_empty_one(clip_folder):
    batch = batch_of(clip_folder, ["a red ring", "a blue cross"]) | {"dropped": torch.tensor([True, False])}
    empty = batch_of(clip_folder, ["", ""])
    chosen = PriorStage(PriorConfig(PRIOR)).condition(batch)
    for name in ("text_embedding", "text_states", "text_mask"):
        assert torch.allclose(chosen[name][0].float(), empty[name][0].float(), atol=1e-5)
        assert torch.equal(chosen[name][1], batch[name][1])


def test_about_a_tenth_of_the_texts_is_dropped_by_key_in_training_only():
    stage = PriorStage(PriorConfig(PRIOR))
    keys = [(0, index, index) for index in range(2000)]
    share = stage._dropped(keys).float().mean()
    assert 0.07 < share < 0.13
    assert torch.equal(stage._dropped(keys[:50]), stage._dropped(keys)[:50])
    assert not stage.eval()._dropped(keys).any()


def test_statistics_come_from_the_data_and_are_saved(run, clip_folder):
    prior = load_model(run, "prior")
    data = PriorDataModule(str(clip_folder), size=16, batch_size=4, statistics_samples=16)
    data.setup("fit")
    mean, std = data.statistics(torch.device("cpu"))
    assert torch.allclose(prior.embedding_mean, mean, atol=1e-5)
    assert torch.allclose(prior.embedding_std, std, atol=1e-5)


def test_clip_stays_out_of_the_checkpoint(run):
    names = set(read_checkpoint(newest_checkpoint(run))["state_dict"])
    assert not [name for name in names if "clip" in name.replace("clip_img_proj", "")]
    assert all(name.startswith(("model.", "ema.")) for name in names)


def test_quality_is_measured_against_all_captions(clip_folder):
    data = PriorDataModule(str(clip_folder), size=16, val_samples=16, gallery=800)
    data.setup("test")
    captions, prototypes = data.prototypes
    assert len(captions) == 96
    assert prototypes.shape == (96, 8)


def test_the_test_command_reports_quality(run, capsys):
    assert main(["test", "--run", str(run), "--trainer.enable_progress_bar", "false"]) in (None, 0)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("test/cosine", "test/text_cosine", "test/retrieval"))


@pytest.mark.row(7)
def test_a_clip_of_another_width_is_refused_in_one_line(clip_folder, tmp_path, capsys):
    arguments = ["--config", "configs/demo/prior.yaml", "--data.clip", str(clip_folder), "--run", str(tmp_path)]
    assert main(["fit", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "embedding_dim 64" in error and str(clip_folder) in error
