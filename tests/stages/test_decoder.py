"""The decoder's stage: what it is conditioned on, and the frame rates it trains at."""

import pytest
import torch

from lightning_mav.data.fps import FpsDistribution
from lightning_mav.stages import DecoderDataModule, DecoderStage
from lightning_mav.stages.decoder import frame_difference


@pytest.fixture
def data(narrow_clip):
    """Return a function that gives moving shapes, with CLIP loaded."""

    def build(**options):
        module = DecoderDataModule(str(narrow_clip), **{"frames": 3, "size": 8, **options})
        module.setup("fit")
        return module

    return build


def batch_of(video, pairs):
    index, position = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
    return {"video": video, "index": index, "position": position}


def test_training_begins_with_fast_videos_and_ends_with_slow_ones(data):
    dataset = data(fps=FpsDistribution(curriculum_samples=10_000)).dataset("train")

    def mean_fps(start):
        return sum(float(dataset[i, start + i]["fps"]) for i in range(60)) / 60

    first, middle, last, later = (mean_fps(start) for start in (0, 5_000, 10_000, 90_000))
    assert first > 22 and first - 3 > middle > last + 2
    assert 8 < last < 14 and 8 < later < 14


def test_held_out_videos_follow_no_curriculum(data):
    dataset = data(fps=FpsDistribution(curriculum_samples=10_000)).dataset("val")
    assert sum(float(dataset[i, i]["fps"]) for i in range(60)) / 60 < 14


def test_a_fixed_frame_rate_is_kept(data):
    dataset = data(fps=8.0).dataset("train")
    assert {float(dataset[i, i]["fps"]) for i in range(5)} == {8.0}


def test_the_condition_is_the_embedding_of_the_first_frame(data):
    video = torch.rand(2, 3, 4, 8, 8) * 2 - 1
    source = data(embedding_frame="first")
    embedding = source.on_after_batch_transfer(batch_of(video, [(0, 0), (1, 1)]), 0)["image_embedding"]
    assert torch.equal(embedding, source.clip.encode_image(video[:, :, 0]))


def test_a_random_frame_depends_on_index_and_position_alone(data):
    source = data(embedding_frame="random")
    video = torch.rand(1, 3, 4, 8, 8).expand(12, -1, -1, -1, -1) * 2 - 1
    pairs = [(i // 2, i) for i in range(12)]
    frames = source._embedded_frame(batch_of(video, pairs))
    again = source._embedded_frame(batch_of(video, pairs[::-1])).flip(0)
    assert torch.equal(frames, again)
    assert len({tuple(frame.flatten().tolist()) for frame in frames}) > 1


def test_images_are_videos_of_one_frame_without_frame_rate(data, decoder_config):
    source = data(frames=1)
    sample = source.dataset("train")[4, 9]
    batch = {key: torch.stack([torch.as_tensor(sample[key])]) for key in ("image", "index", "position")}
    batch = source.on_after_batch_transfer(batch, 0)
    assert batch["video"].shape == (1, 3, 1, 8, 8)
    stage = DecoderStage(decoder_config(videos=False))
    assert "fps" not in stage.condition(batch | {"fps": torch.tensor([8.0])})
    assert "fps" in DecoderStage(decoder_config()).condition(batch | {"fps": torch.tensor([8.0])})


def test_conditions_are_dropped_in_training_only(decoder_config):
    stage = DecoderStage(decoder_config(condition_dropout=1.0))
    keys = [(0, i, i) for i in range(5)]
    assert stage._dropped(keys).all() and not stage.eval()._dropped(keys).any()


def test_generated_noise_depends_on_the_index_alone(decoder_config):
    stage = DecoderStage(decoder_config())
    one = stage.noise({"index": torch.tensor([3, 4]), "position": torch.tensor([0, 1])}).draw((5,))
    other = stage.noise({"index": torch.tensor([4]), "position": torch.tensor([7])}).draw((5,))
    assert torch.equal(one[1:], other)


def test_frame_difference_is_the_mean_change():
    video = torch.tensor([0.0, 0.5, 0.0])[None, None, :, None, None].expand(2, 3, 3, 4, 4)
    assert frame_difference(video) == 0.5
