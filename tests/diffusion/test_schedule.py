import math

import pytest
import torch

from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps
from lightning_mav.errors import ConfigError

NAMES = ["cosine", "linear"]


@pytest.mark.parametrize("name", NAMES)
def test_signal_falls_from_almost_all_to_almost_none(name):
    alphas_cumprod = make_schedule(name).alphas_cumprod
    assert alphas_cumprod.dtype == torch.float64
    assert (alphas_cumprod.diff() < 0).all()
    assert alphas_cumprod[0] > 0.9998
    assert alphas_cumprod[-1] < 1e-4


def test_cosine_follows_its_closed_form_and_clips_beta():
    schedule = make_schedule("cosine", 1000)
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    expected = torch.tensor([value / f[0] for value in f[1:-1]], dtype=torch.float64)
    torch.testing.assert_close(schedule.alphas_cumprod[:-1], expected)
    assert schedule.betas.max() == 0.999


def test_linear_ends_at_the_published_betas():
    betas = make_schedule("linear", 1000).betas
    torch.testing.assert_close(betas[[0, -1]], torch.tensor([1e-4, 0.02], dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_posterior_variance_is_the_product_of_its_two_gaussians(name):
    # q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions and weighted means add.
    schedule = make_schedule(name, 50)
    beta, prev = schedule.betas[1:], schedule.alphas_cumprod_prev[1:]
    variance = 1 / ((1 - beta) / beta + 1 / (1 - prev))
    torch.testing.assert_close(schedule.posterior_variance[1:], variance)
    torch.testing.assert_close(schedule.posterior_mean_coef1[1:], variance * prev.sqrt() / (1 - prev))
    torch.testing.assert_close(schedule.posterior_mean_coef2[1:], variance * (1 - beta).sqrt() / beta)


def test_posterior_at_zero_is_x0_with_the_next_log_variance():
    schedule = make_schedule("cosine")
    assert schedule.posterior_variance[0] == 0
    assert schedule.posterior_mean_coef1[0] == 1 and schedule.posterior_mean_coef2[0] == 0
    assert schedule.posterior_log_variance_clipped[0] == schedule.posterior_log_variance_clipped[1]


@pytest.mark.parametrize("count", [7, 25, 50, 100, 250, 1000])
def test_strided_steps_include_both_ends_and_are_even(count):
    timesteps = spaced_timesteps(1000, count)
    assert len(timesteps) == count and timesteps[0] == 0 and timesteps[-1] == 999
    strides = torch.tensor(timesteps).diff()
    assert strides.max() - strides.min() <= 1
    assert timesteps == spaced_timesteps(1000, str(count)) == spaced_timesteps(1000, [count])


def test_one_step_is_the_noisiest():
    assert spaced_timesteps(1000, 1) == [999]


def test_ddim_steps_have_one_stride():
    assert spaced_timesteps(1000, "ddim25") == list(range(0, 1000, 40))


def test_fast27_is_glides():
    timesteps = spaced_timesteps(1000, "fast27")
    counts = [sum(start <= t < start + 200 for t in timesteps) for start in range(0, 1000, 200)]
    assert counts == [10, 10, 3, 2, 2]
    assert timesteps[-3:] == [799, 800, 997]


def test_sections_split_the_schedule_evenly():
    timesteps = spaced_timesteps(1000, "10,15,20")
    assert timesteps == spaced_timesteps(1000, [10, 15, 20])
    # 1000 = 334 + 333 + 333
    counts = [sum(low <= t < high for t in timesteps) for low, high in [(0, 334), (334, 667), (667, 1000)]]
    assert counts == [10, 15, 20] and {0, 333, 334, 666, 667, 999} <= set(timesteps)


@pytest.mark.parametrize("spec", [7, 25, 250, "ddim50", "fast27", "10,15,20"])
def test_steps_ascend_without_repeats(spec):
    timesteps = spaced_timesteps(1000, spec)
    assert timesteps == sorted(set(timesteps))


def test_shift_moves_steps_to_high_noise_and_keeps_the_ends():
    plain, shifted = spaced_timesteps(1000, 25), spaced_timesteps(1000, 25, shift=3.0)
    assert len(shifted) == 25 and shifted[0] == 0 and shifted[-1] == 999
    assert all(later > earlier for later, earlier in zip(shifted[1:-1], plain[1:-1], strict=True))
    assert shifted[12] == round(999 * 3 * 0.5 / (1 + 2 * 0.5))


@pytest.mark.parametrize("spec", [0, 1001, "ddim600", "twenty", "10,,20", "600,600", "fast"])
def test_unreadable_steps_are_config_errors(spec):
    with pytest.raises(ConfigError):
        spaced_timesteps(1000, spec)


def test_shift_with_sections_is_refused():
    with pytest.raises(ConfigError, match="shift"):
        spaced_timesteps(1000, "10,15,20", shift=3.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", [1, 7, 50, 1000, "ddim25", "fast27"])
def test_respacing_keeps_alphas_cumprod(name, spec):
    schedule = make_schedule(name)
    timesteps = spaced_timesteps(1000, spec)
    respaced = respace(schedule, timesteps)
    assert len(respaced) == len(timesteps) and respaced.num_original == 1000
    torch.testing.assert_close(respaced.alphas_cumprod, schedule.alphas_cumprod[timesteps])
    assert respaced.timesteps.tolist() == timesteps
    assert respaced.posterior_log_variance_clipped.isfinite().all()


def test_respacing_twice_keeps_original_indices():
    once = respace(make_schedule("cosine"), spaced_timesteps(1000, "ddim50"))
    twice = respace(once, [0, 10, 49])
    assert twice.timesteps.tolist() == [0, 200, 980] and twice.num_original == 1000
