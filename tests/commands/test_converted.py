"""From open weights to a video: converted models make up a cascade, single ones exchanged for trained ones."""

from dataclasses import replace

import pytest
import torch

from lightning_mav.__main__ import main
from lightning_mav.checkpoint import convert
from lightning_mav.checkpoint.families import KARLO
from lightning_mav.checkpoint.models import hand_over, load_model, save_model
from lightning_mav.data.readers import open_video
from lightning_mav.models.decoder import Decoder
from lightning_mav.models.interpolation import Interpolation, InterpolationConfig
from lightning_mav.models.super_resolution import SpatialSR

CLIP_WIDTH = 8
UNET = {"channels": 16, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 8, "norm_groups": 4}


def small(family):
    """A family at a size that can be filled; steps are few."""
    network = {
        "prior": {"embedding_dim": CLIP_WIDTH, "states_dim": 8, "width": 16, "num_layers": 1, "num_heads": 2},
        "decoder": UNET | {"attention_downsamples": (2,), "image_embedding_dim": 8, "text_dim": 8, "context_dim": 8},
        "sr_spacetime": UNET,
    }[family.model]
    config = family.config
    size = {"image_size": 8} if family.model == "decoder" else {}
    sampling = replace(config.sampling, steps=2)
    return replace(
        family, config=replace(config, network=replace(config.network, **network), sampling=sampling, **size)
    )


@pytest.fixture(scope="module")
def karlo(tmp_path_factory, pipeline_folder):
    """Converted random weights and the runs that started from them: a folder for Karlo, and one for ours."""
    folder, families = tmp_path_factory.mktemp("karlo"), [small(family) for family in KARLO[:3]]
    torch.manual_seed(0)
    for family in families:
        state = convert.empty_model(family).network.state_dict()
        weights = {family.prefix + key: torch.randn(value.shape) / 5 for key, value in state.items()}
        torch.save({"state_dict": weights}, folder / f"{family.folder}.ckpt")
    torch.save((torch.zeros(CLIP_WIDTH), torch.ones(CLIP_WIDTH)), folder / "stats.th")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "convert_sources", lambda s, original=convert.convert_sources: original(s, families))
        sources = [str(path) for path in sorted(folder.iterdir())]
        assert main(["convert", "--source", *sources, "--out", str(folder / "models")]) == 0

    decoder = load_model(folder / "models" / "decoder").config.inflated()
    filling = InterpolationConfig(**vars(decoder))
    enlarging = load_model(folder / "models" / "sr_spacetime").config
    for model, start in (
        (Decoder(decoder), "models/decoder"),
        (Interpolation(filling), "runs/decoder"),
        (SpatialSR(enlarging), "models/sr_spacetime"),
    ):
        hand_over(folder / start, model)
        save_model(model, folder / "runs" / model.name)
    save_model(load_model(pipeline_folder / "clip"), folder / "models" / "clip")
    return folder


def generate(folder, out, *options):
    words = ["--model", str(folder / "models"), "--decoder", str(folder / "runs" / "decoder"), "--precision=float32"]
    return main(["generate", *words, "--prompt", "a corgi", "--out", str(out), *options])


def test_a_trained_decoder_takes_the_place_of_the_converted_one(karlo, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        assert generate(karlo, tmp_path / name, "--until=decoder", "--frames=3") == 0
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert open_video(str(tmp_path / "one.mp4")).timestamps.size == 3


def test_the_converted_decoder_makes_images_before_any_training(karlo, tmp_path):
    words = ["--model", str(karlo / "models"), "--until=decoder", "--frames=1", "--prompt", "a corgi"]
    assert main(["generate", *words, "--out", str(tmp_path / "corgi.mp4")]) == 0
    assert (tmp_path / "corgi.png").is_file()  # the contact sheet


def test_a_whole_cascade_of_converted_weights_repeats_bit_for_bit(karlo, tmp_path):
    parts = ["--interpolation", str(karlo / "runs" / "interpolation"), "--frames=2", "--frame_skip=2"]
    parts += ["--sr_spatial", str(karlo / "runs" / "sr_spatial")]
    for name in ("one.mp4", "two.mp4"):
        assert generate(karlo, tmp_path / name, *parts) == 0
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
