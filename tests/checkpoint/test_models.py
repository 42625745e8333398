import json
import shutil
from dataclasses import replace

import pytest
import torch

from lightning_mav.checkpoint.config import from_plain, to_plain
from lightning_mav.checkpoint.models import hand_over, load_model, read_model, save_model
from lightning_mav.diffusion.loss import TimestepDensity
from lightning_mav.errors import CheckpointError
from lightning_mav.models import MODELS
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.clip import ClipConfig
from lightning_mav.models.decoder import Decoder, DecoderConfig
from lightning_mav.models.interpolation import InterpolationConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.models.super_resolution import SpacetimeSR, SuperResolutionConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig

UNET = UNetConfig(
    channels=8,
    channel_mult=(1, 2.5),
    num_res_blocks=1,
    attention_downsamples=(2,),
    head_channels=4,
    norm_groups=4,
    image_embedding_dim=6,
    context_dim=8,
    fps=True,
    temporal=TemporalConfig(kernel_size=5, max_distance=7),
)
OBJECTIVE = Objective("linear", 500, "v", density=TimestepDensity("logit_normal", 1.4, 1.2))
SAMPLING = Sampling("ddim", "ddim25", shift=2.0)
SR = SuperResolutionConfig(
    UNetConfig(channels=8, channel_mult=(1,), num_res_blocks=1, attention_downsamples=(), norm_groups=4,
               mid_attention=False, image_embedding_dim=None, context_dim=None),
    sampling=SAMPLING,
    scale=3,
    residual_std=0.2,
)  # fmt: skip
CONFIGS = {
    "clip": ClipConfig(SmallClipConfig(8, 16, (8, 16), text_width=8, text_layers=1, text_heads=2)),
    "prior": PriorConfig(PriorTransformerConfig(embedding_dim=6, states_dim=5, width=16, num_layers=1, num_heads=2)),
    "decoder": DecoderConfig(UNET, OBJECTIVE, SAMPLING, unshuffle=2, image_size=8),
    "interpolation": InterpolationConfig(UNET, OBJECTIVE, SAMPLING, unshuffle=2, image_size=8),
    "sr_spacetime": SR,
    "sr_spatial": SR,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One saved model of each kind, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        model = MODELS[name](config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        save_model(model, folder / name)
    return folder


@pytest.fixture
def decoder(folder, tmp_path):
    """A copy of the decoder that a test may damage."""
    return shutil.copytree(folder / "decoder", tmp_path / "decoder")


def test_every_model_is_here():
    assert set(CONFIGS) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("default", [True, False])
def test_configurations_survive_json(name, default):
    config = MODELS[name].config_class() if default else CONFIGS[name]
    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config


def test_a_key_of_another_version_is_named():
    plain = to_plain(CONFIGS["decoder"])
    plain["network"]["depth"] = 3
    with pytest.raises(CheckpointError, match=r"UNetConfig has no \['depth'\]"):
        from_plain(DecoderConfig, plain)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_exactly(folder, name, tmp_path):
    model = load_model(folder / name, name)
    assert type(model) is MODELS[name] and model.config == CONFIGS[name]
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    save_model(model, tmp_path)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (folder / name / file).read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_another_model_than_the_expected_is_refused(folder, name):
    other = "prior" if name == "decoder" else "decoder"
    with pytest.raises(CheckpointError, match=f"holds the model {name}, expected {other}"):
        load_model(folder / name, other)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: cut(f / "model.safetensors"), "not a readable model folder"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "not a readable model folder"),
        (lambda f: (f / "model.safetensors").unlink(), "decoder"),
        (lambda f: cut(f / "config.json"), "not a readable model folder"),
        (lambda f: (f / "config.json").write_text("[]"), "not a readable model folder"),
        (lambda f: rewrite(f / "config.json", config=None), "not a readable model folder"),
        (lambda f: rewrite(f / "config.json", model="vae"), "holds the model vae, expected clip or prior"),
        (lambda f: rewrite(f / "config.json", config={"networks": {}}), r"DecoderConfig has no \['networks'\]"),
        (lambda f: rewrite(f / "config.json", config=to_plain(SR)), "DecoderConfig has no"),
    ],
)
def test_damage_is_one_line(decoder, damage, said):
    damage(decoder)
    with pytest.raises(CheckpointError, match=said) as failure:
        load_model(decoder)
    assert "\n" not in str(failure.value)


def test_weights_of_another_network_are_refused(decoder):
    config = to_plain(CONFIGS["decoder"])
    config["network"]["channels"] = 16
    rewrite(decoder / "config.json", config=config)
    with pytest.raises(CheckpointError, match="weights do not match their configuration") as failure:
        load_model(decoder)
    assert "\n" not in str(failure.value)


def test_a_folder_of_several_models_is_not_one(folder):
    with pytest.raises(CheckpointError, match=f"name one of them, for example {folder}/decoder"):
        load_model(folder)


def test_a_description_is_read_without_building_the_model(folder):
    description, state = read_model(folder / "sr_spatial", "sr_spatial")
    assert description["config"]["scale"] == 3
    assert set(state) == set(MODELS["sr_spatial"](SR).state_dict())


@pytest.mark.parametrize(
    ("start", "said"),
    [("prior", "sizes differ"), ("interpolation", "unknown weights: network.input_blocks.0.0.extra.weight")],
)
def test_only_a_model_of_the_same_network_hands_its_weights_over(folder, start, said):
    with pytest.raises(CheckpointError, match=f"the {start} there does not fit this decoder: {said}") as failure:
        hand_over(folder / start, Decoder(CONFIGS["decoder"]))
    assert "\n" not in str(failure.value)


def test_other_sizes_and_missing_weights_are_not_handed_over(folder):
    small = UNetConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4)
    with pytest.raises(CheckpointError, match="sizes differ"):
        hand_over(folder / "decoder", Decoder(DecoderConfig(small)))
    deeper = SuperResolutionConfig(UNetConfig(**{**to_plain(SR.network), "num_res_blocks": 2}), scale=3)
    with pytest.raises(CheckpointError, match=r"sizes differ|missing weights"):
        hand_over(folder / "sr_spatial", SpacetimeSR(deeper))


def test_a_refused_hand_over_changes_nothing(folder):
    model = Decoder(CONFIGS["decoder"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        hand_over(folder / "interpolation", model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_weight_that_fits_is_handed_over(folder):
    model = MODELS["interpolation"](CONFIGS["interpolation"])
    assert hand_over(folder / "decoder", model) == ["network.input_blocks.0.0.extra.weight"]
    given = load_model(folder / "decoder").state_dict()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in given.items())


@pytest.mark.parametrize("frames", [True, False])
def test_a_learned_variance_starts_between_the_fixed_ones_and_leaves_the_mean(folder, tmp_path, frames):
    config = replace(CONFIGS["decoder"], objective=replace(OBJECTIVE, variance="fixed_small"))
    plain = Decoder(config if frames else replace(config, network=replace(UNET, temporal=None, fps=False)))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_model(plain, tmp_path)
    hybrid = Decoder(replace(config, objective=replace(OBJECTIVE, variance="learned_range")))
    hand_over(tmp_path, hybrid)
    x, t = torch.randn(1, 3, 4, 8, 8), torch.tensor([100])
    condition = {"image_embedding": torch.randn(1, 6), "fps": torch.tensor([8.0])}
    with torch.no_grad():
        mean, variance = hybrid.call(x, t, condition).chunk(2, 1)
        expected = torch.cat([plain.call(part, t, condition) for part in (x.split(1, 2) if not frames else [x])], 2)
    assert (mean - expected).abs().max() < 1e-5 and not variance.any()


def test_a_network_without_an_image_embedding_takes_one_that_at_first_says_nothing(tmp_path):
    blind = replace(UNET, image_embedding_dim=None, context_dim=None, temporal=None, fps=False)
    plain = Decoder(replace(CONFIGS["decoder"], network=blind))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_model(plain, tmp_path)
    seeing = Decoder(replace(CONFIGS["decoder"], network=replace(blind, image_embedding_dim=6)))
    hand_over(tmp_path, seeing)
    x, t = torch.randn(1, 3, 1, 8, 8), torch.tensor([100])
    with torch.no_grad():
        assert torch.equal(seeing.call(x, t, {"image_embedding": torch.randn(1, 6)}), plain.call(x, t, {}))

    deaf = replace(CONFIGS["decoder"], network=replace(blind, image_embedding_dim=6, context_dim=8, num_image_tokens=4))
    with pytest.raises(CheckpointError, match="missing weights"):  # tokens cannot be added in silence
        hand_over(tmp_path, Decoder(deaf))
