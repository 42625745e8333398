"""The maths gives the numbers of guided-diffusion (commit 22e0df8), to 1e-4 of their size.

The fixture holds inputs and what that code makes of them: every ninth entry of its tables; its respacings, which are
those of GLIDE (commit 69b5307) and Karlo (commit 3c68a50) too; its losses with their gradients on the network's output;
and every state of its samplers, for a network that is a linear map of x_t plus a bias that grows with the timestep.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.diffusion.loss import hybrid, mse, vlb_bits
from lightning_mav.diffusion.process import diffuse, fixed_log_variance, predict_x0, prediction_target
from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps
from lightning_mav.models.base import DiffusionModel, Objective, Sampling

FIXTURE = load_file(Path(__file__).parent / "fixtures" / "guided_diffusion.safetensors")
SCHEDULES = ["cosine", "linear"]
PARAMETERISATIONS = ["eps", "x0"]
FIXED = ["fixed_small", "fixed_large"]
SPECS = ["7", "25", "50", "100", "250", "ddim25", "ddim50", "fast27", "10,15,20"]
TABLES = [
    "betas",
    "alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
]


# Where a difference of nearly equal numbers is close to 0, float32 has no more digits, there as here.
LOSS_ROUNDING, GRADIENT_ROUNDING = 5e-7, 1e-7


def assert_published(ours, key, rows=1, rounding=0.0):
    """Every sample, and of a gradient each of its ``rows`` (mean, variance), to 1e-4 of its own largest number."""
    published = FIXTURE[key]
    ours, published = (values.reshape(-1, rows, values[0].numel() // rows) for values in (ours, published))
    allowed = 1e-4 * published.abs().amax(-1, keepdim=True) + rounding
    assert ((ours - published).abs() <= allowed).all(), ((ours - published).abs() / allowed).amax(-1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("table", TABLES)
def test_tables(name, table):
    published = FIXTURE[f"schedule/{name}/{table}"]
    torch.testing.assert_close(getattr(make_schedule(name), table)[::9], published, rtol=1e-9, atol=0)


@pytest.mark.parametrize("spec", SPECS)
def test_respacing(spec):
    timesteps = spaced_timesteps(1000, spec)
    assert timesteps == FIXTURE[f"respacing/{spec}/timesteps"].tolist()
    for name in SCHEDULES:
        betas = respace(make_schedule(name), timesteps).betas
        torch.testing.assert_close(betas, FIXTURE[f"respacing/{spec}/{name}"], rtol=1e-9, atol=0)


@pytest.fixture(params=product(SCHEDULES, ["1000", "25"], PARAMETERISATIONS), ids="-".join)
def case(request):
    """Schedule, parameterisation, x0, noise, x_t, t, and the network's output with its variance channels."""
    name, spec, parameterisation = request.param
    schedule = respace(make_schedule(name), spaced_timesteps(1000, spec))
    x0, noise, t = FIXTURE["losses/x0"], FIXTURE["losses/noise"], FIXTURE[f"losses/{spec}/t"]
    target = prediction_target(parameterisation, schedule, x0, noise, t)
    output = torch.cat([target, torch.zeros_like(target)], 1) + FIXTURE["losses/error"]
    key = f"losses/{spec}/{name}/{parameterisation}"
    return key, schedule, parameterisation, x0, noise, diffuse(schedule, x0, noise, t), t, output


@pytest.mark.parametrize("variance", FIXED)
def test_losses_of_fixed_variances(case, variance):
    key, schedule, parameterisation, x0, noise, x_t, t, output = case
    output = output[:, :3].requires_grad_()
    simple = mse(output, prediction_target(parameterisation, schedule, x0, noise, t))
    x0_prediction = predict_x0(parameterisation, schedule, output, x_t, t)
    kl = vlb_bits(schedule, x0, x_t, t, x0_prediction, fixed_log_variance(variance, schedule, x_t, t))
    for loss, published in [(simple, "MSE"), (kl, "KL")]:
        assert_published(loss, f"{key}/{variance}/{published}/loss", rounding=LOSS_ROUNDING)
        (gradient,) = torch.autograd.grad(loss.sum(), output, retain_graph=True)
        assert_published(gradient, f"{key}/{variance}/{published}/gradient", rounding=GRADIENT_ROUNDING)


@pytest.mark.parametrize(("published", "vlb_weight"), [("RESCALED_MSE", 1 / 1000), ("MSE", None)])
def test_hybrid_losses(case, published, vlb_weight):
    key, schedule, parameterisation, x0, noise, x_t, t, output = case
    output.requires_grad_()
    weight = vlb_weight or 1 / len(schedule)
    loss = hybrid(schedule, parameterisation, output, x0, noise, x_t, t, weight)
    for part, name in [(weight * len(schedule) * loss.vlb, "vb"), (loss.total, "loss")]:
        assert_published(part, f"{key}/learned_range/{published}/{name}", rounding=LOSS_ROUNDING)
    (gradient,) = torch.autograd.grad(loss.total.sum(), output)
    assert_published(gradient, f"{key}/learned_range/{published}/gradient", rows=2, rounding=GRADIENT_ROUNDING)


class Drawn:
    """A noise stream that gives prescribed draws, one after the other."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def draw(self, shape, shared_frames):
        return next(self.draws)


def states(objective, sampling, clip_x0, weight, bias, x_T, draws):
    """Return x after every step of a linear network's samples, (steps, B, ...)."""
    seen = []
    channels = x_T.shape[1] * (2 if objective.learns_variance else 1)

    def network(x_t, timestep, condition):
        seen.append(x_t)
        moved = bias * timestep[:, None] / 1000
        return (torch.einsum("oc,bc...->bo...", weight, x_t) + moved[..., None, None])[:, :channels]

    last = DiffusionModel(objective, sampling, clip_x0).denoise(network, x_T, {}, {}, Drawn(draws), sampling)
    return torch.stack([*seen[1:], last])


@pytest.mark.parametrize(("name", "clip"), [("cosine", "clipped"), ("linear", "clipped"), ("linear", "unclipped")])
@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
@pytest.mark.parametrize("variance", [*FIXED, "learned_range"])
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", "10"), ("ddim", "ddim10")])
def test_samplers_step_by_step(name, parameterisation, variance, sampler, steps, clip):
    given = [FIXTURE[f"chains/{part}"] for part in ("weight", "bias", "x_T", "draws")]
    objective = Objective(name, parameterisation=parameterisation, variance=variance)
    ours = states(objective, Sampling(sampler, steps), 1.0 if clip == "clipped" else None, *given)
    assert_published(ours, f"chains/{sampler}/{name}/{parameterisation}/{variance}/{clip}", rows=2)
