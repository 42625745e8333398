"""The maths gives the numbers of guided-diffusion (commit 22e0df8) and diffusers (0.42.1), to 1e-4 of their size.

The fixtures hold inputs and what that code makes of them: every ninth entry of its tables; its respacings, which are
those of GLIDE (commit 69b5307) and Karlo (commit 3c68a50) too; its losses with their gradients on the network's output;
and every state of its samplers, for a network that is a linear map of x_t plus a bias that grows with the timestep.
diffusers' schedulers had their tables in float64; in its float32, 1 - alpha-bar is off by up to 5e-4 at t = 0.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.diffusion.loss import hybrid, mse, vlb_bits
from lightning_mav.diffusion.process import diffuse, fixed_log_variance, predict_x0, prediction_target
from lightning_mav.diffusion.samplers import Denoised, dpm_solver_pp
from lightning_mav.diffusion.schedule import make_schedule, respace, spaced_timesteps
from lightning_mav.models.base import DiffusionModel, Objective, Sampling

FIXTURES = Path(__file__).parent / "fixtures"
GUIDED_DIFFUSION, DIFFUSERS = (
    load_file(FIXTURES / f"{name}.safetensors") for name in ("guided_diffusion", "diffusers")
)
FIXTURE = GUIDED_DIFFUSION | DIFFUSERS
CHAIN = {name: FIXTURE[f"chains/{name}"] for name in ("weight", "bias", "x_T", "draws")}
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
    """Compare each row (a sample; of a gradient its mean and variance apart) to 1e-4 of the row's largest number."""
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


def network(x_t, timestep):
    """The linear network whose samples the fixtures hold, with three mean and three variance channels."""
    moved = CHAIN["bias"] * timestep[:, None] / 1000
    return torch.einsum("oc,bc...->bo...", CHAIN["weight"], x_t) + moved[..., None, None]


def states(objective, sampling, clip_x0):
    """Return x after every step of sampling, (steps, B, 3, H, W)."""
    seen = []

    def call(x_t, timestep, condition):
        seen.append(x_t)
        output = network(x_t, timestep)
        return output if objective.learns_variance else output[:, :3]

    model = DiffusionModel(objective, sampling, clip_x0)
    last = model.denoise(call, CHAIN["x_T"], {}, {}, Drawn(CHAIN["draws"]))
    return torch.stack([*seen[1:], last])


@pytest.mark.parametrize(("name", "clip"), [("cosine", "clipped"), ("linear", "clipped"), ("linear", "unclipped")])
@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
@pytest.mark.parametrize("variance", [*FIXED, "learned_range"])
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", "10"), ("ddim", "ddim10")])
def test_samplers_step_by_step(name, parameterisation, variance, sampler, steps, clip):
    objective = Objective(name, parameterisation=parameterisation, variance=variance)
    ours = states(objective, Sampling(sampler, steps), 1.0 if clip == "clipped" else None)
    assert_published(ours, f"chains/{sampler}/{name}/{parameterisation}/{variance}/{clip}", rows=2)


STEPS = {"DDPMScheduler": ("ddpm", "ddim10"), "DDIMScheduler": ("ddim", "ddim10"), "UnCLIPScheduler": ("ddpm", "10")}


@pytest.mark.parametrize("key", [key for key in DIFFUSERS if not key.startswith("DPM")])
def test_samplers_of_diffusers(key):
    scheduler, name, parameterisation, variance = key.split("/")
    objective = Objective(name, parameterisation=parameterisation, variance=variance)
    assert_published(states(objective, Sampling(*STEPS[scheduler]), clip_x0=1.0), key, rows=2)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v"])
def test_dpm_solver_of_diffusers(name, parameterisation):
    """On timesteps whose steps of log-SNR shrink, where our cap on the extrapolation does not act."""
    key = f"DPMSolverMultistepScheduler/{name}"
    schedule = respace(make_schedule(name), DIFFUSERS[f"{key}/timesteps"])
    seen = []

    def denoise(x_t, t):
        seen.append(x_t)
        output = network(x_t, schedule.timesteps[t])[:, :3]
        return Denoised(predict_x0(parameterisation, schedule, output, x_t, t))

    last = dpm_solver_pp(denoise, CHAIN["x_T"], schedule, CHAIN["draws"].__iter__)
    assert_published(torch.stack([*seen[1:], last]), f"{key}/{parameterisation}", rows=2)
