"""A user's own videos: real files of several codecs train the video decoder, and its checkpoint generates."""

import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.models import save_model
from lightning_mav.data.decord_reader import DecordReader
from lightning_mav.data.pyav_reader import PyAVReader
from lightning_mav.data.readers import open_video
from lightning_mav.models.base import Sampling
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.prior import Prior, PriorConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.small_clip import SmallClipConfig

BY_DECORD = ["arm_wrestling.mp4", "stretching.mp4", "pancake.mkv", "test.avi", "realshort.mp4", "h264_10bit.mp4",
             "nasa.mp4", "cockatoo.mp4"]  # fmt: skip
NETWORK = {"channels": 16, "channel_mult": [1], "num_res_blocks": 1, "attention_downsamples": [], "head_channels": 8,
           "norm_groups": 4, "image_embedding_dim": 8, "context_dim": 8}  # fmt: skip
STEPS = 20


@pytest.fixture(scope="module")
def videos(shared_data, tmp_path_factory):
    """The real clips that have at least 16 frames."""
    folder = tmp_path_factory.mktemp("videos")
    for name in [*BY_DECORD, "av1.mkv"]:
        shutil.copy(shared_data / "clips" / name, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(videos, tmp_path_factory):
    """A folder of an untrained CLIP and prior, and the run of a tiny video decoder."""
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    clip = ClipConfig(SmallClipConfig(8, 16, (8,), text_width=8, text_layers=1, text_heads=1))
    prior = PriorTransformerConfig(embedding_dim=8, states_dim=8, width=16, num_layers=1, num_heads=2)
    save_model(Clip(clip), folder / "clip")
    save_model(Prior(PriorConfig(prior, sampling=Sampling(steps=2))), folder / "prior")
    options = [f"--model.config.network.{key}={value}" for key, value in NETWORK.items()]
    options += [f"--data.clip={folder / 'clip'}", f"--data.source={videos}", "--data.size=16", "--data.batch_size=2"]
    options += ["--data.val_samples=2", "--model.init_from=null", "--model.config.sampling.steps=2", "--model.lr=1e-2"]
    options += ["--model.warmup_steps=0", "--model.config.objective.parameterisation=eps"]
    options += [f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.precision=32-true"]
    options += [f"--trainer.val_check_interval={STEPS}"]
    assert main(["fit", "--config", "configs/demo/decoder.yaml", "--run", str(folder / "decoder"), *options]) == 0
    return folder


def test_decord_reads_all_but_av1_which_pyav_reads(videos):
    readers = {path.name: open_video(str(path)) for path in videos.iterdir()}
    assert all(isinstance(readers[name], DecordReader) for name in BY_DECORD)
    assert isinstance(readers["av1.mkv"], PyAVReader)
    assert all(len(reader.timestamps) >= 16 for reader in readers.values())


def test_the_loss_falls(pipeline):
    events = EventAccumulator(str(pipeline / "decoder" / "logs")).Reload()
    losses = [scalar.value for scalar in events.Scalars("train/loss")]
    assert len(losses) == STEPS
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_its_checkpoint_generates(pipeline, tmp_path):
    out = tmp_path / "a.mp4"
    words = ["--model", pipeline, "--prompt", "a cockatoo", "--until", "decoder", "--fps", 8, "--out", out]
    assert main(["generate", *map(str, words)]) == 0
    assert open_video(str(out)).frames(np.arange(16)).shape == (16, 16, 16, 3)
