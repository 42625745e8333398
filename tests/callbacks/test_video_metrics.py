"""FVD and CLIPSIM appear where and when they should, and training does not notice."""

import pytest
import torch

from callbacks import VideoMetrics
from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.errors import ConfigError


def test_logs_both_every_n_steps_and_the_distance_falls_to_zero_for_perfect_samples(fit, events, clip_folder):
    metrics = VideoMetrics(2, num_samples=2, batch_size=1, clip=str(clip_folder), prompts=["a ring", "a cross"])
    trainer, _ = fit(metrics, steps=5)
    assert [event.step for event in events(trainer).Scalars("fvd_2")] == [2, 4]
    assert all(event.value > 0 for event in events(trainer).Scalars("fvd_2"))
    assert all(-1 <= event.value <= 1 for event in events(trainer).Scalars("clipsim"))

    class Perfect:
        precision_plugin, loggers, global_step = trainer.precision_plugin, [], 4

    logged = {}
    Perfect.loggers = [type("Log", (), {"log_metrics": lambda self, found, step: logged.update(found)})()]
    stage = trainer.lightning_module
    stage.predict_step = lambda batch, index: batch["video"]
    metrics.act(Perfect, stage)
    assert logged["fvd_2"] < 1e-6


def test_training_is_the_same_bit_for_bit(fit):
    _, plain = fit(folder="plain")
    _, watched = fit(VideoMetrics(1, num_samples=2), folder="watched")
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert not [name for name in watched.state_dict() if "metric" in name]


def test_clipsim_asks_for_the_prompts(fit, clip_folder):
    metrics = VideoMetrics(4, num_samples=2, clip=str(clip_folder), prompts=["a ring"])
    trainer, stage = fit(metrics)
    seen = []

    def watched(batch, index):
        seen.append(batch["image_embedding"])
        return batch["video"]

    stage.predict_step = watched
    metrics._clip_similarity(trainer, stage)
    assert torch.allclose(seen[0], load_clip(str(clip_folder)).encode_text(["a ring"]).embedding)


def test_nonsense_is_refused(clip_folder):
    with pytest.raises(ConfigError, match="clip and prompts go together"):
        VideoMetrics(prompts=["a ring"])
    with pytest.raises(ConfigError, match=r"2 prompts, but num_samples 1; raise num_samples"):
        VideoMetrics(num_samples=1, clip=str(clip_folder), prompts=["a", "b"])
