from dataclasses import replace

import pytest
import torch

from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.base import Objective, Sampling, shuffle, unshuffle
from lightning_mav.models.decoder import Decoder, DecoderConfig


@pytest.fixture
def make(small_unet):
    """Build an image decoder for 4x4 pixels."""

    def build(sampler="ddim", unshuffle=1, **objective):
        torch.manual_seed(0)
        sampling = Sampling(sampler=sampler, steps=4)
        return Decoder(DecoderConfig(small_unet(), Objective(**objective), sampling, unshuffle, image_size=4))

    return build


def batch_of(size, frames=1, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {
        "video": torch.rand(size, 3, frames, 4, 4, generator=draw) * 2 - 1,
        "image_embedding": torch.randn(size, 6, generator=draw),
        "dropped": torch.zeros(size, dtype=torch.bool),
    }


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_unshuffle_folds_pixels_and_shuffle_unfolds_them(factor):
    video = torch.randn(2, 3, 4, 6, 12)
    folded = unshuffle(video, factor)
    assert folded.shape == (2, 3 * factor**2, 4, 6 // factor, 12 // factor)
    assert torch.equal(shuffle(folded, factor), video)
    assert torch.equal(unshuffle(video[:, :, 1:2], factor), folded[:, :, 1:2])


@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v"])
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_the_loss_falls(make, losses_while_training, parameterisation, variance):
    model = make(unshuffle=2, parameterisation=parameterisation, variance=variance)
    first, last = losses_while_training(model, batch_of(4))
    assert last < 0.8 * first


def test_a_weighting_scales_the_error_of_each_sample(make):
    batch, noise, timestep = batch_of(3), torch.randn(3, 3, 1, 4, 4), torch.tensor([10, 500, 990])
    losses = make(parameterisation="v", variance="fixed_small", weighting="min_snr").loss(batch, noise, timestep)
    assert losses["loss"].shape == losses["mse"].shape == (3,)
    share = losses["loss"] / losses["mse"]
    assert (share > 0).all() and share.unique().numel() == 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_weights_of_another_precision_train_and_sample_as_in_float32(make, randomise, sampler, dtype, tolerance):
    model, batch = randomise(make(sampler)), batch_of(3)
    noise, timestep = torch.randn(3, 3, 1, 4, 4), torch.tensor([10, 500, 990])

    def results():
        drawn = model.sample(batch["image_embedding"], NoiseStream.keyed([("x", i) for i in range(3)]))
        return model.loss(batch, noise, timestep)["loss"].float(), drawn.float()

    expected = results()
    model.to(dtype)
    for found, wanted in zip(results(), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_the_loss_of_a_sample_is_its_own(make, randomise):
    model = randomise(make())
    batch, noise, timestep = batch_of(3), torch.randn(3, 3, 1, 4, 4), torch.tensor([10, 500, 990])
    one = {name: value[1:2] for name, value in batch.items()}
    together = model.loss(batch, noise, timestep)["loss"]
    assert torch.allclose(model.loss(one, noise[1:2], timestep[1:2])["loss"], together[1:2], rtol=1e-4)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("sampler", "changes"), [("ddpm", True), ("ddim", False), ("dpm++", False)])
def test_the_learned_variance_is_what_ddpm_samples_with(make, randomise, stream, sampler, changes, factor):
    model = randomise(make(sampler, factor, variance="learned_range"))
    bias = model.network.out["2"].bias
    drawn = []
    for log_variance in (-1.0, 1.0):
        bias[len(bias) // 2 :] = log_variance
        drawn.append(model.sample(torch.ones(2, 6), stream(2)))
    assert torch.equal(*drawn) != changes


def test_a_learned_variance_at_its_lower_end_is_the_small_fixed_one(make, randomise, stream):
    learned = randomise(make("ddpm", variance="learned_range"))
    fixed = randomise(make("ddpm", variance="fixed_small"))
    last = learned.network.out["2"]
    last.weight[3:], last.bias[3:] = 0, -1
    fixed.load_state_dict(learned.state_dict() | {f"network.out.2.{k}": v[:3] for k, v in last.state_dict().items()})
    drawn = [model.sample(torch.ones(2, 6), stream(2)) for model in (learned, fixed)]
    assert torch.allclose(*drawn, atol=1e-4)


def test_both_fixed_variances_are_used(make, randomise, stream):
    drawn = [
        randomise(make("ddpm", variance=v)).sample(torch.ones(2, 6), stream(2)) for v in ("fixed_small", "fixed_large")
    ]
    assert not torch.allclose(*drawn)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_samples_are_pixels_and_each_depends_on_its_own_noise_alone(make, randomise, stream, sampler):
    model = randomise(make(sampler))
    steps = []
    embedding = torch.randn(3, 6)
    together = model.sample(embedding, stream(3), on_step=lambda done, total: steps.append((done, total)))
    assert together.shape == (3, 3, 1, 4, 4) and together.abs().max() <= 1
    assert steps == [(i, 4) for i in range(1, 5)]
    assert torch.allclose(model.sample(embedding[:1], stream(1)), together[:1], atol=1e-4)
    assert not torch.allclose(model.sample(embedding, stream(3, seed=1)), together)


def test_settings_of_a_call_replace_the_models_own(make, randomise, stream):
    model = randomise(make())
    steps = []
    other = replace(model.sampling, steps=2, shift=3.0)
    drawn = model.sample(torch.ones(1, 6), stream(1), sampling=other, on_step=lambda done, total: steps.append(total))
    assert steps == [2, 2]
    assert not torch.allclose(drawn, model.sample(torch.ones(1, 6), stream(1)))


@pytest.mark.parametrize(("sampler", "changes"), [("ddpm", False), ("ddim", True), ("dpm++", False)])
def test_eta_is_what_ddim_adds_noise_by(make, randomise, stream, sampler, changes):
    model = randomise(make(sampler, variance="fixed_small"))
    drawn = [model.sample(torch.ones(2, 6), stream(2), sampling=replace(model.sampling, eta=eta)) for eta in (0.0, 2.0)]
    assert torch.equal(*drawn) != changes


def test_a_negative_eta_is_refused():
    with pytest.raises(ConfigError, match=r"sampling\.eta: -0\.5 is negative"):
        Sampling(eta=-0.5)
