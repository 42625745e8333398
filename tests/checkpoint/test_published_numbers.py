"""Converted networks give the numbers of the code that published them.

The fixture holds outputs only, of guided-diffusion (commit 22e0df8) and GLIDE (commit 69b5307) at a small width in
float32. Weights and inputs are functions of their names, so that both sides have the same.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_mav.checkpoint.convert import convert_states, empty_model, filled_model
from lightning_mav.checkpoint.families import FAMILIES
from lightning_mav.models.super_resolution import upsample
from lightning_mav.networks.text_transformer import TextTransformerConfig
from lightning_mav.seeding import generator

FIXTURE = load_file(Path(__file__).parent / "fixtures" / "adm_glide.safetensors")
SMALL = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamples": (2,), "dropout": 0.0}
ADM = SMALL | {"head_channels": 16, "num_heads": None, "num_classes": 10}
GLIDE = SMALL | {"head_channels": 16, "context_dim": 32, "text_encoder": TextTransformerConfig(32, 2, 2, 8, 50)}
CASES = {
    "adm": ("ADM 256", ADM),
    "adm, q k v rows": ("ADM 64", ADM),
    "adm, number of heads": ("ADM 128", ADM | {"num_heads": 2}),
    "adm, half width": ("ADM 512", ADM | {"channels": 64, "channel_mult": (0.5, 1)}),
    "adm, plain resampling": ("ADM 256", ADM | {"resblock_updown": False}),
    "adm, no scale and shift": ("ADM 256", ADM | {"scale_shift": False}),
    "adm upsampler": ("ADM 128 to 512", ADM),
    "glide": ("GLIDE base", GLIDE),
    "glide upsampler": ("GLIDE upsampler", GLIDE),
}


def drawn(name, *shape):
    return torch.randn(shape, generator=generator("published numbers", name))


def weights(shapes):
    """Matrices that keep the scale of what they map, norms near 1, biases near 0."""

    def one(name, shape):
        if len(shape) > 1:
            return drawn(name, *shape) / torch.tensor(shape[1:]).prod().sqrt()
        return drawn(name, *shape) / 10 + name.endswith("weight")

    return {name: one(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_the_published_code(case):
    name, sizes = CASES[case]
    (family,) = (one for one in FAMILIES if one.name == name)
    config = replace(family.config, network=replace(family.config.network, **sizes))
    family = replace(family, config=config)
    shapes = {key: value.shape for key, value in empty_model(family).network.state_dict().items()}
    source = weights({key.removeprefix("text_encoder."): shape for key, shape in shapes.items()})
    (converted,) = convert_states([(case, source)], [family])
    model = filled_model(converted).eval()

    condition = {"label": torch.tensor([3, 7])}
    if config.network.text_encoder:
        tokens = torch.randint(50, (2, 8), generator=generator("tokens"))
        condition = {"text_tokens": tokens, "text_mask": torch.arange(8) < torch.tensor([[3], [8]])}
    x, timestep = drawn("x", 2, 3, 1, 16, 16), torch.tensor([5, 871])
    if family.model != "decoder":
        x = torch.cat([x, upsample(drawn("low resolution", 2, 3, 1, 4, 4).clamp(-1, 1), 4, config.enlargement)], 1)
    with torch.no_grad():
        output = model.network(x, timestep, **condition)[:, :, 0]
    assert FIXTURE[case].std() > 0.1
    assert (output - FIXTURE[case]).abs().max() <= 1e-4
