import pytest
import torch

from lightning_mav.diffusion.process import (
    diffuse,
    fixed_log_variance,
    learned_range_log_variance,
    posterior,
    predict_eps,
    predict_x0,
    prediction_target,
)
from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps

SHAPES = [(4, 3, 2, 5, 5), (4, 16)]
SCHEDULES = {
    "full": make_schedule("cosine"),
    "linear": make_schedule("linear"),
    "respaced": respace(make_schedule("cosine"), spaced_timesteps(1000, 20)),
}


@pytest.fixture(params=SHAPES, ids=["video", "embedding"])
def pair(request):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(request.param, generator=generator) * 2 - 1, torch.randn(request.param, generator=generator)


def test_first_step_is_almost_the_data_and_last_almost_the_noise(pair):
    x0, noise = pair
    schedule = make_schedule("cosine")
    t = torch.zeros(4, dtype=torch.int64)
    assert (diffuse(schedule, x0, noise, t) - x0).abs().max() < 0.03
    assert (diffuse(schedule, x0, noise, t + 999) - noise).abs().max() < 1e-3


def test_every_sample_has_its_own_timestep(pair):
    x0, noise = pair
    schedule = make_schedule("cosine")
    t = torch.tensor([0, 10, 500, 999])
    together = diffuse(schedule, x0, noise, t)
    for i in range(4):
        alone = diffuse(schedule, x0[i : i + 1], noise[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v"])
def test_predictions_invert_their_targets(pair, parameterisation, schedule):
    x0, noise = pair
    t = torch.tensor([0, 1, 2, 3]) * (len(schedule) // 4)
    x_t = diffuse(schedule, x0, noise, t)
    target = prediction_target(parameterisation, schedule, x0, noise, t)
    prediction = predict_x0(parameterisation, schedule, target, x_t, t)
    torch.testing.assert_close(prediction, x0, rtol=0, atol=1e-4)
    torch.testing.assert_close(predict_eps(schedule, prediction, x_t, t), noise, rtol=0, atol=1e-4)


def test_v_is_the_derivative_on_the_circle(pair):
    x0, noise = pair
    schedule = make_schedule("cosine")
    t = torch.full((4,), 300)
    angle = schedule.alphas_cumprod[300].sqrt().acos().float()
    v = prediction_target("v", schedule, x0, noise, t)
    torch.testing.assert_close(v, angle.cos() * noise - angle.sin() * x0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_posterior_is_consistent_with_the_forward_process(pair, schedule):
    # E over x_t of q(x_{t-1} | x_t, x_0) must have the mean and variance of q(x_{t-1} | x_0).
    x0, _ = pair
    t = torch.full((4,), len(schedule) // 2)
    alphas_cumprod = schedule.alphas_cumprod.float()[t[0]]
    prev = schedule.alphas_cumprod_prev.float()[t[0]]
    q = posterior(schedule, x0, alphas_cumprod.sqrt() * x0, t)
    torch.testing.assert_close(q.mean, prev.sqrt() * x0)
    coef2 = schedule.posterior_mean_coef2.float()[t[0]]
    variance = q.log_variance.exp() + coef2**2 * (1 - alphas_cumprod)
    torch.testing.assert_close(variance, (1 - prev).expand_as(variance))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_learned_range_ends_at_both_fixed_variances(pair, schedule):
    x0, _ = pair
    t = torch.tensor([1, 2, 5, len(schedule) - 1])
    beta = schedule.betas.log().float()[t].view(-1, *[1] * (x0.dim() - 1)).expand_as(x0)
    high = learned_range_log_variance(schedule, torch.ones_like(x0), t)
    low = learned_range_log_variance(schedule, -torch.ones_like(x0), t)
    torch.testing.assert_close(high, beta)
    torch.testing.assert_close(low, posterior(schedule, x0, x0, t).log_variance.expand_as(x0))
    torch.testing.assert_close(high, fixed_log_variance("fixed_large", schedule, x0, t).expand_as(x0))
    torch.testing.assert_close(low, fixed_log_variance("fixed_small", schedule, x0, t).expand_as(x0))


def test_bfloat16_inputs_are_computed_in_float32(pair):
    x0, noise = (part.bfloat16() for part in pair)
    schedule = make_schedule("cosine")
    t = torch.tensor([1, 100, 500, 900])
    x_t = diffuse(schedule, x0, noise, t)
    torch.testing.assert_close(x_t, diffuse(schedule, x0.float(), noise.float(), t))
    results = [predict_x0(p, schedule, noise, x0, t) for p in ("eps", "x0", "v")]
    results += [prediction_target(p, schedule, x0, noise, t) for p in ("eps", "x0", "v")]
    results += [predict_eps(schedule, x0, noise, t), posterior(schedule, x0, noise, t).mean]
    results += [learned_range_log_variance(schedule, noise, t), x_t]
    assert {result.dtype for result in results} == {torch.float32}
