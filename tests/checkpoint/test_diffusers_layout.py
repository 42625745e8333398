"""Our networks against diffusers' own.

fixtures/unclip.safetensors was made with diffusers 0.42.1: UNet2DConditionModel and UnCLIPTextProjModel (decoder),
UNet2DModel (super_res_first) and PriorTransformer (prior), tiny and with random weights. It holds the weights, random
inputs, what came out, and in its head the arguments of the classes. UnCLIPScheduler sampled from the prior with its
tables in float64; in float32 its last step is off by a factor of 1.0006.
"""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lightning_mav.checkpoint.convert import convert_states, empty_model
from lightning_mav.checkpoint.diffusers_layout import components
from lightning_mav.checkpoint.families import FAMILIES
from lightning_mav.errors import CheckpointError
from lightning_mav.models import MODELS
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.networks.pseudo3d import TemporalConfig

FILE = Path(__file__).parent / "fixtures" / "unclip.safetensors"
SMALL = {"channels": 8, "num_res_blocks": 2, "head_channels": 4, "norm_groups": 4}
NETWORKS = {
    "decoder": {"channel_mult": (1, 2, 2), "image_embedding_dim": 12, "text_dim": 12, "context_dim": 24, **SMALL},
    "prior": {"embedding_dim": 12, "states_dim": 12, "width": 16, "num_layers": 2, "num_heads": 2},
    "sr_spacetime": {"channel_mult": (1, 2), **SMALL},
}
SIZES = {"decoder": {"image_size": 8}, "prior": {"clip_x0": 5.0, "num_candidates": 1}, "sr_spacetime": {}}
FOLDERS = {"decoder": ("decoder", "text_proj"), "prior": ("prior",), "sr_spacetime": ("super_res_first",)}


def tiny(family):
    network = replace(family.config.network, **NETWORKS[family.model])
    return replace(family, config=replace(family.config, network=network, **SIZES[family.model]))


KARLO = [tiny(family) for family in FAMILIES[:3]]


@pytest.fixture(scope="module")
def stored():
    return load_file(FILE)


def part(stored, name):
    return {key.removeprefix(f"{name}/"): value for key, value in stored.items() if key.startswith(f"{name}/")}


@pytest.fixture(scope="module")
def models(stored):
    """Our models with diffusers' weights."""
    given = [(folder, part(stored, folder)) for folders in FOLDERS.values() for folder in folders]
    made = {}
    for one in convert_states(given, KARLO):
        made[one.family.model] = MODELS[one.family.model](one.family.config).eval()
        made[one.family.model].load_state_dict(one.state)
    return made


def text(inputs, name="text"):
    return TextEncoding(inputs[f"{name}_embedding"], inputs[f"{name}_states"], inputs[f"{name}_mask"].bool())


@pytest.mark.parametrize(("dropped", "expected"), [(False, "decoder"), (True, "decoder.null")])
def test_the_decoder_computes_what_diffusers_does(stored, models, dropped, expected):
    inputs, network = part(stored, "inputs"), models["decoder"].network
    with torch.no_grad():
        output = network(
            inputs["decoder.x"][:, :, None],
            inputs["timestep"],
            image_embedding=inputs["image_embedding"],
            image_dropped=torch.full((2,), dropped),
            text_embedding=inputs["text_embedding"],
            text_states=inputs["text_states"],
            text_mask=inputs["text_mask"].bool(),
        )
    assert (output[:, :, 0] - stored[f"outputs/{expected}"]).abs().max() <= 1e-4


def test_the_super_resolution_computes_what_diffusers_does(stored, models):
    inputs = part(stored, "inputs")
    with torch.no_grad():
        output = models["sr_spacetime"].call(
            inputs["sr.x"][:, :, None], inputs["timestep"], {"base": inputs["sr.base"][:, :, None]}
        )
    assert (output[:, :, 0] - stored["outputs/super_res_first"]).abs().max() <= 1e-4


def test_the_prior_computes_what_diffusers_does(stored, models):
    inputs = part(stored, "inputs")
    with torch.no_grad():
        output = models["prior"].call(inputs["prior.x"][:, None], inputs["timestep"], text(inputs).as_condition())
    assert (output[:, 0] - stored["outputs/prior"]).abs().max() <= 1e-4


class Given:
    """Noise that was drawn before."""

    def __init__(self, noise):
        self.noise = iter(noise)

    def draw(self, shape, shared_frames=False):
        return next(self.noise).view(-1, *shape)


def test_guided_sampling_of_the_prior_ends_where_diffusers_does(stored, models):
    inputs = part(stored, "inputs")
    with torch.no_grad():
        drawn = models["prior"].sample(text(inputs), text(inputs, "null"), Given(inputs["prior.noise"]))
    assert (drawn - stored["outputs/prior.sample"]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", FOLDERS)
def test_what_goes_back_is_bit_equal(stored, models, name):
    with safe_open(FILE, "pt") as file:
        arguments = {folder: json.loads(text) for folder, text in file.metadata().items() if folder != "diffusers"}
    made = components(models[name], name)
    assert tuple(one.folder for one in made) == FOLDERS[name]
    for one in made:
        expected = part(stored, one.folder)
        assert set(one.state) == set(expected)
        assert all(torch.equal(one.state[key], value) for key, value in expected.items())
        built_with = {key: value for key, value in one.config.items() if key not in ("_class_name", "sample_size")}
        assert built_with == {key: value for key, value in arguments[one.folder].items() if key != "sample_size"}


@pytest.mark.parametrize("family", FAMILIES[:3], ids=lambda family: family.folder)
def test_at_karlos_size_names_and_shapes_are_the_published_ones(shared_data, family):
    with gzip.open(shared_data / "checkpoint_shapes.json.gz") as file:
        published = json.load(file)
    for one in components(empty_model(family), "karlo"):
        shapes = {key: list(value.shape) for key, value in one.state.items()}
        assert shapes == published[f"diffusers_karlo/{one.folder}"]


def test_temporal_layers_and_the_frame_rate_are_left_out(models):
    config = models["decoder"].config.inflated(TemporalConfig())
    video = MODELS["decoder"](config)
    video.load_state_dict(models["decoder"].state_dict(), strict=False)
    for ours, image in zip(components(video, "video"), components(models["decoder"], "image"), strict=True):
        assert set(ours.state) == set(image.state) and ours.config == image.config
        assert all(torch.equal(ours.state[key], value) for key, value in image.state.items())


def network(family, **changes):
    return replace(family.config, network=replace(family.config.network, **changes))


DECODER, PRIOR, SR = KARLO


@pytest.mark.parametrize(
    ("model", "config", "reason"),
    [
        ("decoder", network(DECODER, text_dim=None), "network.text_dim is None, Karlo's is 768"),
        ("decoder", network(DECODER, text_dim=8), "network.text_dim is not network.image_embedding_dim"),
        ("decoder", network(DECODER, mid_attention=False), "network.mid_attention is False"),
        ("decoder", network(DECODER, channel_mult=(2, 2)), "network.channel_mult does not begin with 1"),
        ("decoder", replace(DECODER.config, unshuffle=2), "unshuffle is 2, Karlo's is 1"),
        ("prior", replace(PRIOR.config, embed_space="raw"), "embed_space is raw, Karlo's is standardised"),
        ("prior", network(PRIOR, states_dim=8), "network.states_dim is not network.embedding_dim"),
        ("sr_spacetime", replace(SR.config, residual_std=0.2), "residual_std is 0.2, Karlo's is None"),
        ("sr_spatial", SR.config, "the model is sr_spatial, not "),
    ],
)
def test_a_model_of_another_shape_is_refused(model, config, reason):
    with torch.device("meta"):
        other = MODELS[model](config)
    with pytest.raises(CheckpointError, match="runs/x: diffusers' UnCLIP lacks such a model") as failure:
        components(other, "runs/x")
    assert reason in str(failure.value) and "\n" not in str(failure.value)
