from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lightning_mav.checkpoint.models import hand_over, save_model
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.decoder import Decoder
from lightning_mav.models.interpolation import (
    Interpolation,
    InterpolationConfig,
    MaskDistribution,
    blended,
    frame_mask,
    plan_windows,
    spread_frames,
)
from lightning_mav.networks.pseudo3d import TemporalConfig

FPS = torch.tensor([30.0])
EMBEDDING = torch.ones(1, 6)
TASKS = {
    "interpolation": frame_mask("regular", 7, 3),
    "animation of one image": frame_mask("first", 7),
    "backward from one image": frame_mask("last", 7),
    "between two images": frame_mask("both_ends", 7),
    "extrapolation forward": frame_mask("prefix", 7, 3),
    "extrapolation backward": frame_mask("suffix", 7, 3),
}


@pytest.fixture(scope="module")
def config(small_unet):
    network = small_unet(fps=True, temporal=TemporalConfig())
    return InterpolationConfig(network, Objective(), Sampling(sampler="ddpm", steps=2), unshuffle=2, image_size=4)


@pytest.fixture(scope="module")
def model(config, randomise):
    return randomise(Interpolation(config))


def video_of(frames, batch=1):
    return torch.rand(batch, 3, frames, 4, 4, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def batch_of(mask, batch=2):
    return {
        "video": video_of(len(mask), batch),
        "image_embedding": torch.randn(batch, 6, generator=torch.Generator().manual_seed(0)),
        "dropped": torch.zeros(batch, dtype=torch.bool),
        "fps": torch.full((batch,), 6.0),
        "frame_mask": mask.expand(batch, -1),
    }


def test_the_network_sees_7_pixel_channels(config, small_unet):
    first = Interpolation(InterpolationConfig(small_unet())).network.input_blocks[0][0]
    assert first.weight.shape[1] == 3 and first.extra.weight.shape[1] == 4
    folded = Interpolation(config).network.input_blocks[0][0]
    assert folded.weight.shape[1] + folded.extra.weight.shape[1] == 7 * config.unshuffle**2


def test_training_starts_as_the_video_decoder(config, randomise, stream, tmp_path):
    decoder = randomise(Decoder(config))
    save_model(decoder, tmp_path)
    model = Interpolation(config).eval()
    assert hand_over(tmp_path, model) == ["network.input_blocks.0.0.extra.weight"]
    batch, noise, timestep = batch_of(TASKS["interpolation"]), torch.randn(2, 3, 7, 4, 4), torch.tensor([100, 900])
    condition = {"image_embedding": batch["image_embedding"], "image_dropped": batch["dropped"], "fps": batch["fps"]}
    extra = torch.cat([batch["video"], torch.ones(2, 1, 7, 4, 4)], 1)
    with torch.no_grad():
        inflated = model.call(noise, timestep, condition | {"extra": extra})
    assert torch.allclose(inflated, decoder.call(noise, timestep, condition), atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_given_frames_come_back_exactly_and_the_others_are_made(model, stream, task):
    mask = TASKS[task]
    video = video_of(7)
    filled = model.fill(video, mask[None], EMBEDDING, FPS, stream(1))
    assert torch.equal(filled[:, :, mask], video[:, :, mask])
    assert not (filled[:, :, ~mask] == video[:, :, ~mask]).all(4).all(3).any()
    assert filled.abs().max() <= 1


@pytest.mark.parametrize("task", TASKS)
def test_given_frames_count_and_missing_ones_are_not_seen(model, stream, task):
    mask = TASKS[task]
    video = video_of(7)
    filled = model.fill(video, mask[None], EMBEDDING, FPS, stream(1))
    for changed, same in ((~mask, True), (mask, False)):
        other = torch.where(changed[None, None, :, None, None], -video, video)
        again = model.fill(other, mask[None], EMBEDDING, FPS, stream(1))
        assert torch.equal(again[:, :, ~mask], filled[:, :, ~mask]) == same


@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_the_loss_counts_missing_frames_only(small_unet, variance):
    network = small_unet(fps=True, temporal=TemporalConfig())
    model = Interpolation(InterpolationConfig(network, Objective(variance=variance)))
    mask = TASKS["interpolation"]
    batch, noise, timestep = batch_of(mask), torch.randn(2, 3, 7, 4, 4), torch.tensor([400, 900])
    output = torch.randn(2, 6 if variance == "learned_range" else 3, 7, 4, 4)

    def losses(frames):
        given = output.clone()
        given[:, :, frames] += 1
        model.call = lambda x_t, timestep, condition: given
        return model.loss(batch, noise, timestep)

    plain, at_given, at_missing = (losses(frames) for frames in ([], mask, ~mask))
    assert all(torch.allclose(plain[name], at_given[name]) for name in plain)
    assert (plain["loss"] != at_missing["loss"]).all()
    wrong = (output[:, :3] - noise)[:, :, ~mask].square().flatten(1).mean(1)
    assert torch.allclose(plain["mse"], wrong)


def test_the_loss_falls(config, losses_while_training):
    torch.manual_seed(0)
    first, last = losses_while_training(Interpolation(config), batch_of(TASKS["interpolation"]))
    assert last < 0.8 * first


@pytest.mark.parametrize(
    ("skip", "length", "windows", "frames"),
    [(5, 16, 5, 76), (4, 13, 5, 61), (3, 16, 3, 46), (2, 15, 3, 31), (15, 16, 15, 226)],
)
def test_windows_cover_all_frames_and_share_given_end_frames(skip, length, windows, frames):
    plan = plan_windows(16, skip)
    assert len(plan) == windows
    assert plan[0][0] == 0 and plan[-1][1] == frames
    assert {end - start for start, end in plan} == {length}
    assert all(start % skip == 0 and (end - 1) % skip == 0 for start, end in plan)
    joins = [following[0] - before[1] for before, following in pairwise(plan)]
    assert all(join == -1 for join in joins[:-1]) and joins[-1] <= -1


@pytest.mark.parametrize(("given", "skip"), [(16, 16), (1, 5)])
def test_what_does_not_fit_a_window_is_refused(given, skip):
    with pytest.raises(ConfigError, match=f"{given} frames at frame_skip {skip}"):
        plan_windows(given, skip)


@pytest.mark.parametrize("skip", [2, 3, 4, 5, 15])
def test_interpolation_keeps_given_frames_exactly(model, stream, skip):
    video = video_of(16)
    windows = [stream(1, seed) for seed in range(15)]
    dense = model.interpolate(video, skip, EMBEDDING, FPS, windows)
    assert dense.shape == (1, 3, 15 * skip + 1, 4, 4)
    assert torch.equal(dense[:, :, ::skip], video)


def test_windows_are_independent_and_samples_keep_their_noise(model, stream):
    video = video_of(7, batch=2)
    embedding, fps = EMBEDDING.expand(2, -1), FPS.expand(2)
    dense = model.interpolate(video, 5, embedding, fps, [stream(2, seed) for seed in (1, 2)])
    assert dense.shape[2] == 31
    spread, mask = spread_frames(video, 5)
    second = model.fill(spread[:, :, 15:], mask[None, 15:].expand(2, -1), embedding, fps, stream(2, 2))
    assert torch.allclose(dense[:, :, 15:], second, atol=1e-4)
    alone = [NoiseStream(stream(2, seed).generators[1:]) for seed in (1, 2)]
    assert torch.allclose(model.interpolate(video[1:], 5, EMBEDDING, FPS, alone), dense[1:], atol=1e-4)


def test_one_pass_over_all_frames_works(model, stream):
    video = video_of(7)
    dense = model.interpolate(video, 5, EMBEDDING, FPS, [stream(1)], mode="full")
    assert dense.shape[2] == 31
    assert torch.equal(dense[:, :, ::5], video)


@pytest.mark.parametrize("shared", [True, False])
def test_frames_start_from_the_same_noise_where_asked(config, stream, monkeypatch, shared):
    model, seen = Interpolation(replace(config, shared_noise=shared)), []
    monkeypatch.setattr(model, "call", lambda x_t, *_: seen.append(x_t) or torch.zeros_like(x_t).repeat(1, 2, 1, 1, 1))
    model.fill(video_of(4), torch.tensor([[True, False, False, True]]), EMBEDDING, FPS, stream(1))
    assert len(seen) == 2  # the first step's noise, and what the second adds
    assert all(torch.equal(x_t, x_t[:, :, :1].expand_as(x_t)) == shared for x_t in seen)


def test_the_frame_rate_counts_and_stops_at_30(model, stream):
    slow, fast, faster = (
        model.interpolate(video_of(4), 5, EMBEDDING, torch.tensor([fps]), [stream(1)]) for fps in (6.0, 30.0, 80.0)
    )
    assert not torch.allclose(slow, fast) and torch.equal(fast, faster)


def test_every_kind_of_mask_is_drawn_by_its_share():
    draw = torch.Generator().manual_seed(0)
    drawn = Counter(tuple(MaskDistribution().draw(16, draw).tolist()) for _ in range(3000))
    expected = {tuple(frame_mask("regular", 16, skip).tolist()): 0.125 for skip in (2, 3, 4, 5)}
    expected |= {tuple(frame_mask(k, 16).tolist()): s for k, s in (("first", 0.15), ("last", 0.05), ("both_ends", 0.1))}
    for mask, share in expected.items():
        assert abs(drawn.pop(mask) / 3000 - share) < 0.03
    assert set(drawn) == {tuple(frame_mask(k, 16, n).tolist()) for k in ("prefix", "suffix") for n in range(2, 9)}


def test_a_share_of_zero_is_never_drawn():
    draw = torch.Generator().manual_seed(0)
    masks = MaskDistribution((5,), regular=1, first=0, last=0, both_ends=0, prefix=0, suffix=0)
    assert all(torch.equal(masks.draw(16, draw), frame_mask("regular", 16, 5)) for _ in range(50))


def test_blending_keeps_given_frames_rebuilds_even_motion_and_holds_the_ends():
    even = torch.linspace(-1, 1, 16)[:, None, None].expand(1, 3, 16, 4, 4)
    assert torch.allclose(blended(even, frame_mask("regular", 16, 5)[None]), even, atol=1e-6)
    noise = torch.randn(2, 3, 16, 4, 4)
    masks = torch.stack([frame_mask("regular", 16, 5), frame_mask("prefix", 16, 4)])
    found = blended(noise, masks)
    assert torch.allclose(found[0, :, ::5], noise[0, :, ::5]) and torch.allclose(found[1, :, :4], noise[1, :, :4])
    assert torch.allclose(found[0, :, 2], 0.6 * noise[0, :, 0] + 0.4 * noise[0, :, 5], atol=1e-6)
    assert torch.allclose(found[1, :, 4:], noise[1, :, 3:4].expand(3, 12, 4, 4))
    only_last = blended(noise[:1], frame_mask("last", 16)[None])
    assert torch.allclose(only_last, noise[:1, :, -1:].expand(1, 3, 16, 4, 4))
    hidden = torch.where(masks[:, None, :, None, None], noise, torch.nan)
    assert torch.equal(blended(hidden, masks), found)


@pytest.mark.parametrize("parameterisation", ["v", "x0"])
def test_a_network_that_says_nothing_of_the_residual_gives_the_blend(small_unet, stream, parameterisation):
    network = small_unet(fps=True, temporal=TemporalConfig())
    objective, sampling = Objective(parameterisation=parameterisation, variance="fixed_small"), Sampling("ddim", 1)
    model = Interpolation(InterpolationConfig(network, objective, sampling, image_size=4, residual_std=0.1))
    mask = TASKS["interpolation"][None]
    video = video_of(7)
    filled = model.fill(video, mask, EMBEDDING, FPS, stream(1))  # its last layer starts at zero
    assert torch.allclose(filled, blended(video, mask), atol=1e-2)


def test_residuals_may_be_larger_than_pixels(config, stream, monkeypatch):
    """A frame unlike any blend, from black to white, comes back."""
    model, mask = Interpolation(replace(config, residual_std=0.1)), TASKS["interpolation"][None]
    video = (~mask).float()[:, None, :, None, None].expand(1, 3, 7, 4, 4) * 2 - 1
    monkeypatch.setattr(model, "_sample", lambda *args: (video - blended(video, mask)) / 0.1)
    assert torch.allclose(model.fill(video, mask, EMBEDDING, FPS, stream(1)), video, atol=1e-6)
