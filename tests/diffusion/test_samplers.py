"""Samplers on data N(m, s^2 I), for which the best denoiser and the exact answer are known."""

import pytest
import torch

from lightning_mav.diffusion.process import gather, signal_and_noise
from lightning_mav.diffusion.samplers import SAMPLERS, Denoised, ddim, ddpm, dpm_solver_pp, sampler_of
from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps

M, S = 0.3, 0.2


def steps(spec, name="cosine", shift=1.0):
    return respace(make_schedule(name), spaced_timesteps(1000, spec, shift))


def gaussian_denoiser(schedule, learned=False):
    """E[x_0 | x_t], and when ``learned`` the exact variance of x_{t-1} given x_t."""

    def denoise(x_t, t):
        a, b = signal_and_noise(schedule, t, x_t)
        total = a**2 * S**2 + b**2
        x0 = M + a * S**2 / total * (x_t - a * M)
        if not learned:
            return Denoised(x0)
        spread = gather(schedule.posterior_mean_coef1, t, x_t) ** 2 * S**2 * b**2 / total
        return Denoised(x0, (gather(schedule.posterior_variance, t, x_t) + spread).log())

    return denoise


def exact_ode(schedule, x_T):
    """The probability-flow solution: the number of standard deviations from the mean never changes."""
    last = schedule.alphas_cumprod[-1].float()
    return M + S * (x_T - last.sqrt() * M) / (last * S**2 + 1 - last).sqrt()


def normal(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator)


def no_draw():
    raise AssertionError("a deterministic sampler must not draw noise")


@pytest.mark.parametrize("shape", [(8, 3, 4, 10, 10), (200, 48)], ids=["video", "embedding"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_known_gaussian_is_recovered(name, shape):
    schedule, draw = steps(100), normal(shape)
    sample = SAMPLERS[name](gaussian_denoiser(schedule), draw(), schedule, draw)
    assert sample.shape == shape and sample.dtype == torch.float32
    assert abs(sample.mean() - M) < 0.01
    assert abs(sample.std() - S) < 0.02


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_ddpm_with_the_exact_variance_is_exact_in_few_steps(name):
    # Only t = 0, where no noise is added, is left out of the exactness.
    schedule, draw = steps(8, name), normal((100, 400))
    exact = ddpm(gaussian_denoiser(schedule, learned=True), draw(), schedule, draw)
    fixed = ddpm(gaussian_denoiser(schedule), draw(), schedule, draw)
    assert abs(exact.std() - S) < 0.004
    assert abs(fixed.std() - S) > 2 * abs(exact.std() - S)


@pytest.mark.parametrize(("eta", "count"), [(0.5, 100), (1.0, 100), (2.0, 800)])
def test_ddim_recovers_the_known_gaussian_with_more_steps_for_more_fresh_noise(eta, count):
    schedule, draw = steps(count), normal((200, 48))
    sample = ddim(gaussian_denoiser(schedule), draw(), schedule, draw, eta=eta)
    assert abs(sample.mean() - M) < 0.01
    assert abs(sample.std() - S) < 0.02


@pytest.mark.parametrize("spec", [7, "fast27"])
def test_ddim_at_eta_1_is_ddpm_with_the_small_variance(spec):
    schedule, x_T = steps(spec), normal((4, 50), 1)()
    samples = [
        sampler(gaussian_denoiser(schedule), x_T, schedule, normal((4, 50)))
        for sampler in (ddpm, sampler_of("ddim", 1.0))
    ]
    torch.testing.assert_close(*samples, rtol=0, atol=1e-5)


def test_fresh_noise_mends_what_early_steps_got_wrong():
    # A denoiser that is right but for the noisier half of its steps, where it sees nothing.
    schedule = steps(50)
    right, x_T = gaussian_denoiser(schedule), normal((64, 100))()

    def half_blind(x_t, t):
        return right(x_t, t) if t[0] < 25 else Denoised(torch.full_like(x_t, 1.0))

    errors = [abs(ddim(half_blind, x_T, schedule, normal((64, 100)), eta=eta).mean() - M) for eta in (0.0, 1.0, 2.0)]
    assert errors[0] > 1.2 * errors[1] and errors[1] > 1.2 * errors[2]


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_dpm_solver_beats_ddim_at_ten_steps(name, shift):
    schedule = steps(10, name, shift)
    x_T = normal((64, 100))()
    errors = [
        (sampler(gaussian_denoiser(schedule), x_T, schedule, no_draw) - exact_ode(schedule, x_T)).square().mean().sqrt()
        for sampler in (dpm_solver_pp, ddim)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("sampler", [ddim, dpm_solver_pp])
def test_deterministic_samplers_converge_to_the_exact_flow(sampler):
    x_T = normal((16, 100))()
    errors = []
    for count in (10, 40, 160):
        schedule = steps(count)
        sample = sampler(gaussian_denoiser(schedule), x_T, schedule, no_draw)
        errors.append((sample - exact_ode(schedule, x_T)).square().mean().sqrt())
    # Four times the steps: about a quarter of a first-order error, less of a second-order one.
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3 and errors[2] < 0.03 * S


@pytest.mark.parametrize("spec", [1, 2, 27, "fast27"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_gives_the_data_back(name, spec):
    schedule, draw = steps(spec), normal((2, 3, 2, 4, 4))
    data = draw()
    sample = SAMPLERS[name](lambda x_t, t: Denoised(data), draw(), schedule, draw)
    torch.testing.assert_close(sample, data, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_run_down_the_schedule_once_and_are_reported(name):
    schedule, draw = steps(7), normal((2, 5))
    visited, reported = [], []

    def denoise(x_t, t):
        assert t.shape == (2,) and t.dtype == torch.int64 and x_t.dtype == torch.float32
        visited.append(t[0].item())
        return Denoised(0.5 * x_t)

    x_T = draw().bfloat16()
    SAMPLERS[name](denoise, x_T, schedule, draw, lambda done, total: reported.append((done, total)))
    assert visited == [6, 5, 4, 3, 2, 1, 0]
    assert reported == [(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("sampler", [ddpm, sampler_of("ddim", 0.5)])
def test_random_samplers_draw_once_per_step_but_not_at_the_last(sampler):
    schedule, draw = steps(7), normal((2, 5))
    drawn = []

    def counting():
        drawn.append(1)
        return draw()

    sampler(gaussian_denoiser(schedule), draw(), schedule, counting)
    assert len(drawn) == 6
