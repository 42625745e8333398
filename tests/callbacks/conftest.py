"""A real fit of a tiny video decoder on moving shapes."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mav.checkpoint.models import save_model
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.stages import DecoderDataModule, DecoderStage


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """An untrained small CLIP of width 8."""
    folder = tmp_path_factory.mktemp("clip")
    save_model(Clip(ClipConfig(SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1))), folder)
    return folder


@pytest.fixture
def fit(clip_folder, tmp_path):
    """Return a function that trains for some steps with given callbacks and returns trainer and stage."""
    network = UNetConfig(
        channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_downsamples=(2,),
        head_channels=8,
        norm_groups=4,
        dropout=0.1,  # the one thing that reads torch's global generator
        image_embedding_dim=8,
        context_dim=8,
        fps=True,
        temporal=TemporalConfig(),
    )
    objective = Objective(parameterisation="v", variance="fixed_small")
    config = DecoderConfig(network, objective, Sampling(steps=2), image_size=8)

    def run(*callbacks, steps=4, folder="run", batch_size=3, **settings):
        torch.manual_seed(0)
        stage = DecoderStage(config, lr=1e-2)
        data = DecoderDataModule(str(clip_folder), frames=4, size=8, batch_size=batch_size, val_samples=2)
        trainer = Trainer(
            max_steps=steps,
            callbacks=list(callbacks),
            default_root_dir=tmp_path / folder,
            logger=TensorBoardLogger(tmp_path / folder, name="", version="logs"),
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            **settings,
        )
        trainer.fit(stage, data)
        return trainer, stage

    return run


@pytest.fixture
def events():
    """Return a function that reads what a trainer has logged to TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(trainer):
        return EventAccumulator(trainer.logger.log_dir).Reload()

    return read
