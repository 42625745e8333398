from dataclasses import replace

import pytest
import torch
from einops import rearrange

from lightning_mav.checkpoint.models import hand_over, save_model
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.networks.pseudo3d import is_temporal

FRAMES = 3


@pytest.fixture(scope="module")
def image_config(small_unet):
    sampling = Sampling(sampler="ddpm", steps=4, guidance_scale=2.0)
    return DecoderConfig(small_unet(), Objective(), sampling, unshuffle=2, image_size=8)


@pytest.fixture(scope="module")
def images(image_config, randomise):
    return randomise(Decoder(image_config))


@pytest.fixture(scope="module")
def videos(image_config, images, tmp_path_factory):
    """The video decoder as it is when its training starts."""
    folder = tmp_path_factory.mktemp("decoder_image")
    save_model(images, folder)
    model = Decoder(image_config.inflated()).eval().requires_grad_(False)
    model.fresh = hand_over(folder, model)
    return model


class PerFrame(NoiseStream):
    """Noise of one video whose frames are the samples of a batch of images."""

    def draw(self, shape_per_sample, shared_frames=False):
        c, _, h, w = shape_per_sample
        return rearrange(super().draw((c, 1, h, w)), "f c 1 h w -> 1 c f h w")


def test_a_video_decoder_starts_as_its_image_decoder_on_every_frame(images, videos, stream):
    embedding = torch.randn(1, 6)
    pictures = images.sample(embedding.expand(FRAMES, -1), stream(FRAMES))
    video = videos.sample(embedding, PerFrame(stream(FRAMES).generators), torch.tensor([6.0]), FRAMES)
    assert torch.allclose(rearrange(video, "1 c f h w -> f c 1 h w"), pictures, atol=1e-5)
    assert not torch.allclose(pictures[0], pictures[1], atol=0.1)


def test_only_what_an_image_decoder_lacks_is_fresh(images, videos):
    assert videos.makes_videos and not images.makes_videos
    assert videos.fresh and all(is_temporal(name.removeprefix("network.")) for name in videos.fresh)


def test_frames_interact_after_training_and_the_frame_rate_counts(videos, randomise, image_config):
    model = randomise(Decoder(image_config.inflated()))
    batch = {"image_embedding": torch.ones(1, 6), "image_dropped": torch.zeros(1, dtype=torch.bool)}
    x, timestep = torch.randn(1, 3, FRAMES, 8, 8), torch.tensor([500])
    changed = x.clone()
    changed[:, :, 0] = 0
    slow, fast, other = (
        model.call(frames, timestep, batch | {"fps": torch.tensor([fps])})
        for frames, fps in ((x, 6.0), (x, 30.0), (changed, 6.0))
    )
    assert not torch.allclose(slow, fast)
    assert not torch.allclose(slow[:, :, 2], other[:, :, 2])


def test_a_dropped_embedding_does_not_count(images):
    batch = {"video": torch.zeros(2, 3, 1, 8, 8), "dropped": torch.tensor([True, False])}
    noise, timestep = torch.randn(2, 3, 1, 8, 8), torch.tensor([400, 400])
    one, other = (
        images.loss(batch | {"image_embedding": torch.full((2, 6), value)}, noise, timestep)["loss"]
        for value in (1.0, -1.0)
    )
    assert one[0] == other[0] and one[1] != other[1]


def test_guidance_moves_away_from_no_embedding(images, stream):
    plain = replace(images.sampling, guidance_scale=1.0)
    embedding = torch.randn(2, 6)
    guided, unguided = images.sample(embedding, stream(2)), images.sample(embedding, stream(2), sampling=plain)
    assert not torch.allclose(guided, unguided, atol=1e-3)


def encoded(seed, batch):
    generator = torch.Generator().manual_seed(seed)
    embedding, states = torch.randn(batch, 10, generator=generator), torch.randn(batch, 6, 10, generator=generator)
    return TextEncoding(embedding, states, (torch.arange(6) < 4).expand(batch, -1))


def test_a_decoder_with_text_reads_it_and_guidance_moves_away_from_the_empty_text(image_config, randomise, stream):
    config = replace(image_config, network=replace(image_config.network, text_dim=10))
    model, embedding = randomise(Decoder(config)), torch.randn(2, 6)

    def sample(text, scale=1.0):
        sampling = replace(config.sampling, guidance_scale=scale)
        return model.sample(embedding, stream(2), sampling=sampling, text=(encoded(text, 2), encoded(0, 1)))

    assert torch.equal(sample(1), sample(1)) and not torch.allclose(sample(1), sample(2), atol=1e-3)
    assert not torch.allclose(sample(1, 2.0), sample(1), atol=1e-3)


def test_learned_variances_come_after_the_colours(image_config, randomise):
    model = randomise(Decoder(image_config))
    last = model.network.out["2"]
    last.weight.zero_()
    last.bias[:12], last.bias[12:] = 0.25, 0.75
    condition = {"image_embedding": torch.ones(1, 6), "image_dropped": torch.zeros(1, dtype=torch.bool)}
    output = model.call(torch.randn(1, 3, 1, 8, 8), torch.tensor([3]), condition)
    assert output.shape == (1, 6, 1, 8, 8)
    assert (output[:, :3] == 0.25).all() and (output[:, 3:] == 0.75).all()


def test_the_loss_falls_on_videos(small_unet, image_config, losses_while_training):
    torch.manual_seed(0)
    model = Decoder(image_config.inflated())
    batch = {
        "video": torch.rand(2, 3, FRAMES, 8, 8) * 2 - 1,
        "image_embedding": torch.randn(2, 6),
        "dropped": torch.zeros(2, dtype=torch.bool),
        "fps": torch.tensor([6.0, 30.0]),
    }
    first, last = losses_while_training(model, batch)
    assert last < 0.8 * first
