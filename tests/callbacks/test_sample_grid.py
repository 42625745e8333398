"""Samples appear where and when they should, and training does not notice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

from callbacks import SampleGrid
from lightning_mav.data.transforms import to_uint8
from lightning_mav.errors import ConfigError
from lightning_mav.models.clip import ClipConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.stages import ClipDataModule, ClipStage


def test_writes_an_animation_and_a_sheet_every_n_steps(fit, events):
    trainer, _ = fit(SampleGrid(every_n_steps=2, num_samples=3), steps=5, accumulate_grad_batches=2)
    folder = Path(trainer.default_root_dir)
    names = [f"step={step:06d}.{suffix}" for step in (2, 4) for suffix in ("png", "webp")]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == names
    with Image.open(folder / "samples" / "step=000004.webp") as animation:
        assert (animation.n_frames, animation.size) == (4, (2 * 64, 3 * 64))
    with Image.open(folder / "samples" / "step=000004.png") as sheet:
        assert sheet.size == (4 * 66 - 2, 6 * 66 - 2)
    assert [image.step for image in events(trainer).Images("samples")] == [2, 4]


def test_training_is_the_same_bit_for_bit(fit):
    grid = SampleGrid(every_n_steps=1)
    _, plain = fit(folder="plain")
    _, watched = fit(grid, folder="watched")
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert all(part.training for part in watched.modules())


def test_shows_held_out_videos_and_what_the_averaged_weights_make_of_them(fit):
    grid = SampleGrid(every_n_steps=4, num_samples=2)
    trainer, stage = fit(grid)
    held_out = trainer.datamodule.dataset("val")
    real = torch.stack([held_out[i, i]["video"] for i in range(2)])
    assert torch.equal(grid.batch["video"], real)
    stage.eval()
    with torch.no_grad():
        made = stage.predict_step(grid.batch, 0)
        as_trained = stage.samples(grid.batch, stage.noise(grid.batch))
    with Image.open(Path(trainer.default_root_dir) / "samples" / "step=000004.webp") as animation:
        shown = torch.from_numpy(np.asarray(animation.convert("RGB")).copy())
    wanted = [rearrange(to_uint8(video[:, :, 0].transpose(0, 1)), "b h w c -> (b h) w c") for video in (real, made)]
    assert (shown[4::8, 4::8].int() - torch.cat(wanted, 1).int()).abs().float().mean() < 6  # WebP is lossy
    assert not torch.equal(made, as_trained)


def test_a_stage_without_pictures_is_refused(tmp_path):
    from lightning.pytorch import Trainer

    small = SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1)
    trainer = Trainer(max_steps=1, callbacks=[SampleGrid()], default_root_dir=tmp_path, accelerator="cpu", logger=False)
    with pytest.raises(ConfigError, match="ClipStage makes no pictures; remove SampleGrid"):
        trainer.fit(ClipStage(ClipConfig(small)), ClipDataModule(size=16, batch_size=2))


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="every_n_steps 0"):
        SampleGrid(every_n_steps=0)
