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
from lightning_mav.networks.pseudo3d import TemporalConfig, is_temporal
from lightning_mav.networks.text_transformer import TextTransformerConfig
from lightning_mav.networks.unet import UNet
from lightning_mav.seeding import generator
from tests.by_name import drawn, weights, with_weights

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


def at_small_width(name, sizes):
    (family,) = (one for one in FAMILIES if one.name == name)
    return replace(family, config=replace(family.config, network=replace(family.config.network, **sizes)))


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_the_published_code(case):
    family = at_small_width(*CASES[case])
    config = family.config
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


KARLO = SMALL | {"head_channels": 16, "attention_downsamples": (2,), "image_embedding_dim": 12, "context_dim": 24}
INFLATED = CASES | {
    "karlo decoder": ("Karlo decoder", KARLO | {"text_dim": 12}),
    "karlo super-resolution": ("Karlo super-resolution", SMALL | {"attention_downsamples": ()}),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", INFLATED)
def test_the_inflated_network_is_the_published_one_on_every_frame(case, precision):
    family = at_small_width(*INFLATED[case])
    network, frames = family.config.network, 3
    channels = (3, 6 if family.config.objective.learns_variance else 3) if family.model == "decoder" else (6, 6)
    plain, inflated = UNet(network, *channels), UNet(replace(network, temporal=TemporalConfig(), fps=True), *channels)
    with_weights(plain)
    report = inflated.load_state_dict(plain.state_dict(), strict=False)
    assert not report.unexpected_keys and all(map(is_temporal, report.missing_keys))

    condition = {"image_embedding": drawn("image", 1, 12)} if network.image_embedding_dim else {}
    if network.text_dim:
        condition |= {"text_embedding": drawn("text", 1, 12), "text_states": drawn("states", 1, 5, 12)}
    x, timestep = drawn("video", 1, channels[0], frames, 8, 8), torch.tensor([400])
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        expected = torch.cat([plain(x[:, :, f : f + 1], timestep, **condition) for f in range(frames)], 2)
        actual = inflated(x, timestep, fps=torch.tensor([8.0]), **condition)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-5
