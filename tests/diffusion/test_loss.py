import math

import pytest
import torch

from lightning_mav.diffusion.loss import TimestepDensity, hybrid, loss_weight, mse, vlb_bits
from lightning_mav.diffusion.process import diffuse, posterior, predict_x0, prediction_target
from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps

SCHEDULE = make_schedule("cosine")
PARAMETERISATIONS = ["eps", "x0", "v"]


@pytest.fixture(params=[(4, 3, 2, 4, 4), (4, 8)], ids=["video", "embedding"])
def batch(request):
    """x0 on 8-bit levels, noise, x_t, t."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(256, request.param, generator=generator) / 127.5 - 1
    noise = torch.randn(request.param, generator=generator)
    t = torch.tensor([0, 1, 300, 990])
    return x0, noise, diffuse(SCHEDULE, x0, noise, t), t


def test_mse_is_one_number_per_sample(batch):
    x0, noise, _, _ = batch
    assert mse(x0, x0).tolist() == [0] * 4
    torch.testing.assert_close(mse(noise, x0)[2], torch.nn.functional.mse_loss(noise[2], x0[2]))


def test_bound_is_zero_for_the_true_posterior(batch):
    x0, _, x_t, t = batch
    vlb = vlb_bits(SCHEDULE, x0, x_t, t, x0, posterior(SCHEDULE, x0, x_t, t).log_variance)
    assert vlb.shape == (4,) and (vlb[1:].abs() < 1e-6).all()


def test_bound_is_the_kl_of_two_gaussians_in_bits(batch):
    x0, _, x_t, t = batch
    log_variance = torch.full_like(x0, -3.0)
    q, p = posterior(SCHEDULE, x0, x_t, t), posterior(SCHEDULE, x0 + 0.1, x_t, t)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, (q.log_variance / 2).exp().expand_as(q.mean)),
        torch.distributions.Normal(p.mean, (log_variance / 2).exp()),
    )
    vlb = vlb_bits(SCHEDULE, x0, x_t, t, x0 + 0.1, log_variance)
    torch.testing.assert_close(vlb[1:], expected.flatten(1).mean(1)[1:] / math.log(2))


def test_first_step_scores_a_distribution_over_the_256_levels():
    levels = (torch.arange(256) / 127.5 - 1).view(256, 1)
    t = torch.zeros(256, dtype=torch.int64)
    for mean, std in [(0.0, 0.3), (0.95, 0.2), (-1.0, 0.003)]:
        prediction = torch.full_like(levels, mean)
        bits = vlb_bits(SCHEDULE, levels, levels, t, prediction, torch.full_like(levels, 2 * math.log(std)))
        torch.testing.assert_close((-bits * math.log(2)).exp().sum(), torch.tensor(1.0), rtol=0, atol=1e-4)


def test_first_step_is_free_when_the_level_is_certain(batch):
    x0, _, x_t, t = batch
    vlb = vlb_bits(SCHEDULE, x0, x_t, t * 0, x0, torch.full_like(x0, -20.0))
    assert (vlb.abs() < 1e-6).all()


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_bound_trains_the_variance_and_never_the_mean(batch, parameterisation):
    x0, noise, x_t, t = batch
    mean, v = torch.zeros_like(x0, requires_grad=True), torch.zeros_like(x0, requires_grad=True)
    loss = hybrid(SCHEDULE, parameterisation, torch.cat([mean, v], dim=1), x0, noise, x_t, t)
    loss.vlb.sum().backward(retain_graph=True)
    assert mean.grad.abs().max() == 0 and v.grad.abs().max() > 0
    mean.grad, v.grad = None, None
    loss.simple.sum().backward()
    assert mean.grad.abs().max() > 0 and v.grad.abs().max() == 0


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_hybrid_is_simple_plus_lambda_t_vlb(batch, parameterisation):
    x0, noise, x_t, t = batch
    output = torch.cat([0.5 * x0, 0.1 * noise], dim=1)
    loss = hybrid(SCHEDULE, parameterisation, output, x0, noise, x_t, t)
    torch.testing.assert_close(loss.total, loss.simple + 0.001 * 1000 * loss.vlb)
    target = prediction_target(parameterisation, SCHEDULE, x0, noise, t)
    torch.testing.assert_close(loss.simple, mse(0.5 * x0, target))
    without = hybrid(SCHEDULE, parameterisation, output, x0, noise, x_t, t, vlb_weight=0.0)
    torch.testing.assert_close(without.total, without.simple)


def test_hybrid_counts_the_steps_of_a_respaced_schedule(batch):
    x0, noise, _, _ = batch
    schedule = respace(SCHEDULE, spaced_timesteps(1000, 50))
    t = torch.tensor([0, 1, 20, 49])
    x_t = diffuse(schedule, x0, noise, t)
    loss = hybrid(schedule, "eps", torch.cat([x0, x0], dim=1), x0, noise, x_t, t)
    torch.testing.assert_close(loss.total, loss.simple + 0.001 * 50 * loss.vlb)


def test_hybrid_of_bfloat16_output_is_float32_and_finite_at_every_step():
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(1000)
    x0, noise = torch.rand(1000, 2, generator=generator) * 2 - 1, torch.randn(1000, 2, generator=generator)
    x_t = diffuse(SCHEDULE, x0, noise, t)
    output = torch.randn(1000, 4, generator=generator).bfloat16().requires_grad_()
    loss = hybrid(SCHEDULE, "eps", output, x0, noise, x_t, t)
    loss.total.sum().backward()
    assert {loss.total.dtype, loss.simple.dtype, loss.vlb.dtype} == {torch.float32}
    assert loss.total.isfinite().all() and output.grad.isfinite().all()


@pytest.mark.parametrize("name", ["min_snr", "capped_residual"])
@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_a_weighted_loss_is_the_same_whatever_the_network_outputs(batch, name, parameterisation):
    x0, noise, x_t, _ = batch
    t = torch.tensor([5, 100, 300, 700])
    x_t = diffuse(SCHEDULE, x0, noise, t)
    target = prediction_target(parameterisation, SCHEDULE, x0, noise, t)
    output = target + 0.1 * noise.flip(0)
    weighted = loss_weight(name, parameterisation, SCHEDULE, t) * mse(output, target)
    on_x0 = mse(predict_x0(parameterisation, SCHEDULE, output, x_t, t), x0)
    torch.testing.assert_close(weighted, loss_weight(name, "x0", SCHEDULE, t) * on_x0, rtol=1e-3, atol=0)


def test_weights_follow_their_formulas():
    t = torch.arange(1000)
    alphas_cumprod = SCHEDULE.alphas_cumprod
    snr = alphas_cumprod / (1 - alphas_cumprod)
    assert (loss_weight("uniform", "eps", SCHEDULE, t) == 1).all()
    torch.testing.assert_close(loss_weight("min_snr", "eps", SCHEDULE, t), ((5 / snr).clamp(max=1)).float())
    torch.testing.assert_close(loss_weight("min_snr", "v", SCHEDULE, t), (snr.clamp(max=5) / (snr + 1)).float())
    capped = (1 / (1 - alphas_cumprod)).clamp(max=5).float()
    torch.testing.assert_close(loss_weight("capped_residual", "x0", SCHEDULE, t), capped)


def test_uniform_timesteps_cover_the_range_evenly():
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([TimestepDensity().draw(10, generator) for _ in range(5000)])
    counts = t.bincount(minlength=10)
    assert len(counts) == 10 and (counts / 500 - 1).abs().max() < 0.2


def test_logit_normal_timesteps_have_the_stated_logit():
    generator = torch.Generator().manual_seed(0)
    density = TimestepDensity("logit_normal", mean=1.4, std=1.2)
    t = torch.tensor([density.draw(1000, generator) for _ in range(5000)])
    assert t.min() >= 0 and t.max() <= 999
    logits = ((t + 0.5) / 1000).logit()
    assert abs(logits.mean() - 1.4) < 0.06 and abs(logits.std() - 1.2) < 0.06


def test_extreme_logits_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    assert TimestepDensity("logit_normal", mean=80.0).draw(1000, generator) == 999
    assert TimestepDensity("logit_normal", mean=-80.0).draw(1000, generator) == 0


def test_the_density_moves_to_its_end_over_the_curriculum():
    density = TimestepDensity("logit_normal", mean=-3.0, std=0.5, mean_end=3.0, curriculum_samples=100)

    def mean_at(position):
        generator = torch.Generator().manual_seed(0)
        return sum(density.draw(1000, generator, position) for _ in range(300)) / 300

    assert mean_at(0) < 80 and 400 < mean_at(50) < 600 and mean_at(100) > 920
    assert mean_at(100) == mean_at(1000)


def test_a_draw_is_a_function_of_its_generator():
    density = TimestepDensity("logit_normal")
    draws = {density.draw(10**9, torch.Generator().manual_seed(7)) for _ in range(3)}
    assert len(draws) == 1
