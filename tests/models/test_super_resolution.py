from dataclasses import replace

import pytest
import torch

from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.super_resolution import (
    SpacetimeSR,
    SpatialSR,
    SuperResolution,
    SuperResolutionConfig,
    cross_fades,
    upsample,
)
from lightning_mav.networks.pseudo3d import TemporalConfig

STILL = torch.rand(1, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 5, -1, -1) * 2 - 1


@pytest.fixture(scope="module")
def make(small_sr_unet):
    """Build a small super-resolution model; a keyword of the configuration's changes it."""

    def build(model_class=SpatialSR, temporal=None, sampler="ddim", **changes):
        config = SuperResolutionConfig(small_sr_unet(temporal=temporal), sampling=Sampling(sampler=sampler, steps=3))
        return model_class(replace(config, **changes))

    return build


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_every_frame_of_a_still_video_is_enlarged_alike_because_noise_is_shared(make, randomise, stream, sampler):
    shared, not_shared = randomise(make(SpatialSR, sampler=sampler)), randomise(make(SpacetimeSR, sampler=sampler))
    large = shared.sample(STILL, stream(1))
    assert torch.allclose(large, large[:, :, :1].expand_as(large), atol=1e-5)
    other = not_shared.sample(STILL, stream(1))
    assert not torch.allclose(other, other[:, :, :1].expand_as(other), atol=0.01)


def test_frames_in_chunks_are_exactly_frames_at_once(make, randomise, stream):
    video = torch.rand(2, 3, 5, 4, 4) * 2 - 1
    once, chunked = (
        randomise(make(sampler="ddpm", frames_per_chunk=limit)).sample(video, stream(2)) for limit in (80, 2)
    )
    assert torch.allclose(once, chunked, atol=1e-5)


def test_chunks_of_a_network_that_mixes_frames_overlap(make, randomise, stream):
    video = torch.rand(1, 3, 24, 4, 4) * 2 - 1
    model = make(SpacetimeSR, TemporalConfig(attention=False), frames_per_chunk=16)
    calls = []
    call = model.call
    model.call = lambda x_t, t, condition: (calls.append(x_t.shape[2]), call(x_t, t, condition))[1]
    assert model.sample(video, stream(1)).shape == (1, 3, 24, 16, 16)
    assert calls == 3 * [16, 16]


@pytest.mark.parametrize(
    ("frames", "limit", "overlap"), [(76, 80, 8), (76, 16, 8), (77, 16, 8), (9, 4, 8), (5, 2, 0), (3, 1, 8)]
)
def test_cross_fades_cover_every_frame_with_weight_one(frames, limit, overlap):
    windows = cross_fades(frames, limit, overlap)
    total = torch.zeros(frames)
    for start, weight in windows:
        assert 0 < len(weight) <= limit and (weight > 0).all()
        total[start : start + len(weight)] += weight
    assert torch.allclose(total, torch.ones(frames))
    assert len(windows) == 1 or limit < frames


def test_without_overlap_windows_do_not_fade():
    assert all((weight == 1).all() for _, weight in cross_fades(7, 3, 0))


@pytest.mark.parametrize("residual_std", [None, 0.2])
def test_a_network_that_knows_the_answer_gives_the_video_back(make, stream, residual_std):
    video = torch.rand(1, 3, 2, 16, 16) * 2 - 1
    low_res = torch.rand(1, 3, 2, 4, 4) * 2 - 1
    model = make(objective=Objective(parameterisation="x0", variance="fixed_small"), residual_std=residual_std)
    base = upsample(low_res, 4)
    answer = video if residual_std is None else (video - base) / residual_std
    model.call = lambda x_t, timestep, condition: answer
    assert torch.allclose(model.sample(low_res, stream(1)), video, atol=1e-5)
    losses = model.loss({"video": video, "low_res": low_res}, torch.randn_like(video), torch.tensor([500]))
    assert losses["loss"] == 0


@pytest.mark.parametrize("model_class", [SpatialSR, SpacetimeSR])
@pytest.mark.parametrize("residual_std", [None, 0.2])
def test_the_loss_falls(make, losses_while_training, model_class, residual_std):
    torch.manual_seed(0)
    objective = Objective(parameterisation="v", variance="fixed_small")
    model = make(model_class, unshuffle=2, residual_std=residual_std, objective=objective)
    video = torch.rand(2, 3, 2, 16, 16) * 2 - 1
    first, last = losses_while_training(model, {"video": video, "low_res": video[..., ::4, ::4]})
    assert last < 0.8 * first


def test_a_learned_variance_trains_here_too(make, losses_while_training):
    torch.manual_seed(0)
    video = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    batch = {"video": video, "low_res": video[..., ::4, ::4]}
    first, last = losses_while_training(make(unshuffle=2, objective=Objective()), batch)
    assert last < 0.8 * first


@pytest.mark.parametrize(("scale", "height", "width"), [(4, 4, 8), (3, 6, 4)])
def test_any_size_is_enlarged_by_the_scale(make, randomise, stream, scale, height, width):
    low_res = torch.rand(1, 3, 2, height, width) * 2 - 1
    large = randomise(make(scale=scale)).sample(low_res, stream(1))
    assert large.shape == (1, 3, 2, scale * height, scale * width)
    assert large.abs().max() <= 1


def test_the_input_counts(make, randomise, stream):
    model = randomise(make())
    assert not torch.allclose(model.sample(STILL, stream(1)), model.sample(-STILL, stream(1)), atol=0.01)


def test_upsampling_keeps_constants_and_the_range():
    assert torch.allclose(upsample(torch.full((1, 3, 2, 4, 4), 0.3), 3), torch.tensor(0.3))
    assert upsample(torch.randn(1, 3, 2, 4, 4).sign(), 4).abs().max() <= 1


def test_the_default_network_has_no_attention():
    with torch.device("meta"):
        model = SuperResolution(SuperResolutionConfig())
    assert not [name for name, _ in model.named_modules() if name.endswith(("qkv", "temporal"))]


def test_no_frames_at_once_are_refused(make):
    with pytest.raises(ConfigError, match="frames_per_chunk is 0"):
        make(frames_per_chunk=0)
