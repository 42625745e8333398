"""Tiny stages that train in a fraction of a second."""

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.models import save_model
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.stages import DecoderDataModule


@pytest.fixture(scope="session")
def narrow_clip(tmp_path_factory):
    """An untrained CLIP of width 8."""
    folder = tmp_path_factory.mktemp("clip")
    save_model(Clip(ClipConfig(SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1))), folder)
    return folder


@pytest.fixture
def decoder_config():
    """Return a function that configures a tiny decoder, of videos unless told otherwise."""

    def build(videos=True, **changes):
        network = UNetConfig(
            channels=8,
            channel_mult=(1,),
            num_res_blocks=1,
            attention_downsamples=(1,),
            head_channels=8,
            norm_groups=4,
            image_embedding_dim=8,
            context_dim=8,
            fps=videos,
            temporal=TemporalConfig() if videos else None,
        )
        objective = Objective(parameterisation="v", variance="fixed_small")
        return DecoderConfig(network, objective, Sampling(steps=2), image_size=8, **changes)

    return build


@pytest.fixture
def data(narrow_clip):
    """Return a function that gives moving shapes to a tiny decoder."""
    return lambda **options: DecoderDataModule(str(narrow_clip), **{"frames": 3, "size": 8, "batch_size": 2, **options})


@pytest.fixture
def train(tmp_path):
    """Return a function that trains a stage for some optimiser steps."""

    def run(stage, data, steps=2, callbacks=(), **settings):
        torch.manual_seed(0)
        trainer = Trainer(
            max_steps=steps,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            **settings,
        )
        trainer.fit(stage, data)
        return trainer

    return run


@pytest.fixture(scope="session")
def fit_command(narrow_clip, tmp_path_factory):
    """Return a function that gives the words of a ``fit`` of a tiny video decoder; options replace its settings."""
    network = {"channels": 8, "channel_mult": [1], "num_res_blocks": 1, "attention_downsamples": [1],
               "head_channels": 8, "norm_groups": 4, "dropout": 0.1, "image_embedding_dim": 8, "context_dim": 8,
               "fps": True, "temporal": {}}  # fmt: skip
    config = {
        "model": {
            "class_path": "lightning_mav.stages.DecoderStage",
            "init_args": {"config": {"network": network, "image_size": 8, "sampling": {"steps": 2}}, "lr": 1e-2},
        },
        "data": {
            "class_path": "lightning_mav.stages.DecoderDataModule",
            "init_args": {"clip": str(narrow_clip), "frames": 3, "size": 8, "batch_size": 2, "val_samples": 2},
        },
        "trainer": {"accelerator": "cpu", "max_steps": 6, "enable_progress_bar": False, "enable_model_summary": False,
                    "check_val_every_n_epoch": None, "val_check_interval": 3},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("config") / "decoder.yaml"
    path.write_text(yaml.safe_dump(config))

    def words(run, *options):
        return ["fit", "--config", str(path), "--run", str(run), *map(str, options)]

    return words


@pytest.fixture
def fit(fit_command):
    """Return a function that runs such a command in this process and returns its exit code."""
    return lambda run, *options: main(fit_command(run, *options))
